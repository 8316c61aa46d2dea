//! Two that do the same work, in turn.

use anyhow::Result;
use async_trait::async_trait;

use crate::gauge::{Gauge, Sample, Side};
use crate::memory;

/// One that does the work: this project's programs, or a rival.
#[async_trait(?Send)]
pub(crate) trait Contestant {
    /// What it is called in the table.
    fn name(&self) -> String;

    /// Its daemons, which run already.
    fn members(&self) -> Result<Vec<(Side, u32)>>;

    /// Makes things ready for one run; not measured.
    async fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// The work; this is measured.
    async fn run(&mut self) -> Result<()>;

    /// Looks whether the work was done, to the last byte where `thoroughly`, and takes its result away; not measured.
    async fn check(&mut self, thoroughly: bool) -> Result<()>;
}

/// The runs of one contestant.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    /// Who it is.
    pub(crate) name: String,
    /// Its runs, in order.
    pub(crate) samples: Vec<Sample>,
}

/// Lets both do the work `runs` times, in turn, after a first time that does not count and is looked at closely: who
/// delivers false bytes fast has not won. Before each time, as much free memory as the work fills, `fills` bytes, is made
/// ready.
///
/// # Errors
/// Where one of them fails; with its name.
pub(crate) async fn compete<'a>(
    ours: &'a mut dyn Contestant,
    rival: &'a mut dyn Contestant,
    runs: usize,
    fills: u64,
) -> Result<(Runs, Runs)> {
    let mut both = [(ours, Vec::new()), (rival, Vec::new())];
    for round in 0..=runs {
        for (contestant, samples) in &mut both {
            let sample = once(&mut **contestant, round == 0, fills).await;
            let sample = sample.map_err(|error| error.context(contestant.name()))?;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let [ours, rival] = both.map(|(contestant, samples)| Runs { name: contestant.name(), samples });
    Ok((ours, rival))
}

async fn once(contestant: &mut dyn Contestant, thoroughly: bool, fills: u64) -> Result<Sample> {
    contestant.prepare().await?;
    // What others have left to be written is not this one's work.
    rustix::fs::sync();
    memory::have_ready(fills)?;
    let gauge = Gauge::new(&contestant.members()?)?;
    let sample = gauge.measure(contestant.run()).await?;
    contestant.check(thoroughly).await?;
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use anyhow::ensure;

    use super::*;

    struct Player {
        name: &'static str,
        fails: bool,
        played: Rc<RefCell<Vec<String>>>,
    }

    #[async_trait(?Send)]
    impl Contestant for Player {
        fn name(&self) -> String {
            self.name.to_owned()
        }

        fn members(&self) -> Result<Vec<(Side, u32)>> {
            Ok(Vec::new())
        }

        async fn run(&mut self) -> Result<()> {
            ensure!(!self.fails, "too tired");
            self.played.borrow_mut().push(self.name.to_owned());
            Ok(())
        }

        async fn check(&mut self, thoroughly: bool) -> Result<()> {
            if thoroughly {
                self.played.borrow_mut().push(format!("{} is right", self.name));
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn they_take_turns_and_are_checked_once() {
        let played = Rc::new(RefCell::new(Vec::new()));
        let player = |name, fails| Player { name, fails, played: Rc::clone(&played) };
        let (ours, rival) = compete(&mut player("a", false), &mut player("b", false), 2, 0).await.unwrap();
        assert_eq!((ours.samples.len(), rival.samples.len()), (2, 2));
        assert_eq!(*played.borrow(), ["a", "a is right", "b", "b is right", "a", "b", "a", "b"]);
        let error = compete(&mut player("a", false), &mut player("b", true), 2, 0).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "b: too tired");
    }
}
