//! What an event costs the plan of a transfer with 10,000 pieces and 100 sources; it is to be 10 µs or less. An event is
//! that something happened, and that every source is then asked for what it has room for, as the engine does it.
//!
//! `cargo bench --package p2pd --bench plan`

use criterion::Criterion;

/// Where the plan is in the program, to which no bench can be linked: it is pure, and needs nothing else of it.
#[allow(
    dead_code,
    unused_imports,
    reason = "what only the engine and the plan's own tests use comes with it"
)]
#[path = "../src/transfer"]
mod transfer {
    mod plan;

    mod plan_scene;

    use std::time::Duration;

    use criterion::Criterion;

    use plan_scene::{EVENTS, Scene};

    /// Measures one kind of event, in transfers of which these shares are here when they are looked at first and last.
    fn measure(
        criterion: &mut Criterion,
        what: &str,
        (first, last): (f64, f64),
        event: impl Fn(&mut Scene) -> Duration,
    ) {
        let mut scene = Scene::new(first);
        criterion.bench_function(what, |bencher| {
            bencher.iter_custom(|events| {
                let mut took = Duration::ZERO;
                for _ in 0..events {
                    if scene.events >= EVENTS || scene.share() >= last {
                        scene = Scene::new(first);
                    }
                    scene.events += 1;
                    took += event(&mut scene);
                }
                took
            });
        });
    }

    pub(super) fn measure_all(criterion: &mut Criterion) {
        let middle = (0.5, 0.9);
        measure(criterion, "a piece arrived", middle, Scene::arrived);
        measure(criterion, "a source gained a piece", middle, Scene::gained);
        measure(criterion, "a source left and one joined", middle, Scene::changed);
        measure(criterion, "all of these mixed", middle, Scene::mixed);
        // Two for each source: all of them are asked for.
        measure(criterion, "a piece arrived when nothing is free", (0.98, 1.0), Scene::arrived);
    }
}

fn main() {
    let mut criterion = Criterion::default().without_plots().configure_from_args();
    transfer::measure_all(&mut criterion);
    criterion.final_summary();
}
