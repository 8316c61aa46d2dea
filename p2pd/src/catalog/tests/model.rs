//! The catalog against a model that knows nothing of databases.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::digest::Digest;
use super::*;

const SHARES: [&str; 2] = ["net", "pals"];

#[derive(Debug, Clone)]
enum Step {
    Put {
        share: usize,
        name: u8,
        bytes: u8,
    },
    Remove {
        share: usize,
        name: u8,
    },
    Set {
        share: usize,
        friends: bool,
        available: bool,
    },
    Hide {
        share: usize,
    },
    /// A maestro reads a page of this many.
    Sync {
        limit: u32,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let share = || 0..SHARES.len();
    let step = prop_oneof![
        5 => (share(), 0u8..4, 0u8..3).prop_map(|(share, name, bytes)| Step::Put { share, name, bytes }),
        3 => (share(), 0u8..4).prop_map(|(share, name)| Step::Remove { share, name }),
        2 => (share(), any::<bool>(), any::<bool>())
            .prop_map(|(share, friends, available)| Step::Set { share, friends, available }),
        1 => share().prop_map(|share| Step::Hide { share }),
        3 => (1u32..4).prop_map(|limit| Step::Sync { limit }),
    ];
    prop::collection::vec(step, 1..60)
}

/// What is true, as sets.
#[derive(Default)]
struct Model {
    files: BTreeMap<(usize, u8), u8>,
    shares: [(bool, bool); 2],
}

impl Model {
    fn seen_by_network(&self) -> BTreeSet<(String, String, u64)> {
        let is_seen = |share: usize| self.shares[share] == (false, true);
        let seen = self.files.iter().filter(|((share, _), _)| is_seen(*share));
        seen.map(|((share, name), bytes)| (SHARES[*share].to_owned(), format!("f{name}"), u64::from(*bytes)))
            .collect()
    }
}

/// A maestro that remembers what it was told.
#[derive(Default)]
struct Maestro {
    through: u64,
    /// What could not be resumed from when it was sent its first page.
    oldest: u64,
    files: BTreeSet<(String, String, u64)>,
}

impl Maestro {
    async fn sync(&mut self, catalog: &Catalog, limit: u32) -> Changes {
        let oldest = catalog.oldest_resumable();
        if self.through == 0 || self.through < oldest && self.oldest < oldest {
            // What a full catalog does: forget what is not told again.
            *self = Maestro { oldest, ..Maestro::default() };
        }
        let page = catalog.changes_after(self.through, limit).await.unwrap();
        let mut last = self.through;
        for change in &page.changes {
            assert!(change.sequence > last, "{page:?}");
            last = change.sequence;
            let (share, name) = match &change.what {
                Changed::Upserted(fact) => (&fact.share, &fact.name),
                Changed::Removed { share, name } => (share, name),
            };
            self.files.retain(|(s, n, _)| (s, n.as_str()) != (share, name.as_str()));
            if let Changed::Upserted(fact) = &change.what {
                self.files.insert((share.clone(), name.to_string(), fact.size));
            }
        }
        assert!(page.through >= last);
        self.through = page.through;
        page
    }
}

async fn play(steps: Vec<Step>) {
    let store = Store::keeping(1).await;
    let catalog = &store.catalog;
    let mut model = Model { shares: [(false, true), (true, true)], ..Model::default() };
    let mut maestro = Maestro::default();
    for step in steps {
        match step {
            Step::Put { share, name, bytes } => {
                let text = "x".repeat(bytes.into());
                store.put(SHARES[share], &format!("f{name}"), &text).await;
                model.files.insert((share, name), bytes);
            }
            Step::Remove { share, name } => {
                store.remove(SHARES[share], &format!("f{name}")).await;
                model.files.remove(&(share, name));
            }
            Step::Set { share, friends, available } => {
                let visible = if friends { Visibility::Friends } else { Visibility::Network };
                store.set(SHARES[share], visible, available).await;
                model.shares[share] = (friends, available);
            }
            Step::Hide { share } => {
                catalog.hide_shares_except(vec![SHARES[1 - share].to_owned()]).await.unwrap();
                model.shares[share].1 = false;
            }
            Step::Sync { limit } => drop(maestro.sync(catalog, limit).await),
        }
    }
    while !maestro.sync(catalog, 2).await.complete {}
    let end = maestro.sync(catalog, 2).await;
    let expected = model.seen_by_network();
    assert_eq!(maestro.files, expected);
    let mut digest = Digest::default();
    for (share, name, size) in &expected {
        let content = ContentHash::of("x".repeat(*size as usize).as_bytes());
        digest.toggle(share, name, &content, *size);
    }
    assert_eq!((end.digest, end.files), (digest.0, expected.len() as u64));
    assert_eq!(end.through, *catalog.watch().borrow());
    for (at, (_, totals)) in catalog.share_totals().await.unwrap().into_iter().enumerate() {
        let mine =
            model.files.iter().filter(|((share, _), _)| *share == at).map(|(_, bytes)| u64::from(*bytes));
        assert_eq!(totals, Totals { files: mine.clone().count() as u64, bytes: mine.sum() });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_maestro_that_is_told_page_by_page_knows_what_is_true(steps in steps()) {
        tokio::runtime::Runtime::new().unwrap().block_on(play(steps));
    }
}
