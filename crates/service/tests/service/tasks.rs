//! Tasks: what ends early is reported, what does not end is aborted.

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use p2p_service::tasks::Tasks;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn the_end_of_an_important_task_is_reported_with_its_name_and_reason() {
    let tasks = Tasks::new();
    tasks.spawn("announce", async { Err("the maestro is gone".into()) });
    let failure = tasks.failed().await;
    assert_eq!((failure.name, failure.reason.as_str()), ("announce", "failed: the maestro is gone"));
    assert_eq!(
        failure.to_string(),
        "the task 'announce' failed: the maestro is gone; the daemon cannot go on without it"
    );

    let tasks = Tasks::new();
    tasks.spawn("rescan", async { Ok(()) });
    let failure = tasks.clone().failed().await;
    assert_eq!((failure.name, failure.reason.as_str()), ("rescan", "ended although nobody asked it to"));
}

#[tokio::test]
async fn causes_are_told_too() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot scan /srv")]
    struct Scan(#[source] std::io::Error);
    let tasks = Tasks::new();
    tasks.spawn("rescan", async {
        Err(Box::new(Scan(std::io::Error::other("disk on fire"))) as Box<dyn Error + Send + Sync>)
    });
    assert_eq!(tasks.failed().await.reason, "failed: cannot scan /srv: disk on fire");
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_reported_with_its_message_and_the_first_failure_stays() {
    let tasks = Tasks::new();
    let pages = 0;
    tasks.spawn("index", async move { panic!("{pages} pages left") });
    assert_eq!(tasks.failed().await.reason, "panicked: 0 pages left");
    tasks.spawn("announce", async { Err("too late".into()) });
    sleep(Duration::from_secs(1)).await;
    assert_eq!(tasks.failed().await.name, "index");
}

#[tokio::test(start_paused = true)]
async fn detached_tasks_may_end_and_even_panic() {
    let tasks = Tasks::new();
    tasks.spawn_detached("connection", async {});
    tasks.spawn_detached("connection", async { panic!("bad peer") });
    assert!(timeout(Duration::from_secs(60), tasks.failed()).await.is_err());
    assert!(tasks.shutdown(Duration::ZERO).await, "nothing is left to abort");
}

#[tokio::test(start_paused = true)]
async fn tasks_that_heed_the_token_end_by_themselves_and_are_no_failure() {
    let tasks = Tasks::new();
    let token = tasks.token();
    tasks.spawn("serve", async move {
        token.cancelled().await;
        sleep(Duration::from_secs(3)).await;
        Err("cut off while draining".into())
    });
    let handle = tasks.clone();
    let start = Instant::now();
    assert!(tasks.shutdown(Duration::from_secs(10)).await);
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(timeout(Duration::from_secs(60), handle.failed()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn tasks_that_do_not_end_are_aborted_after_the_grace_time() {
    let tasks = Tasks::new();
    let (held, dropped) = oneshot::channel::<()>();
    tasks.spawn("stubborn", async move {
        let _held = held;
        pending().await
    });
    tasks.spawn_detached("connection", pending());
    let handle = tasks.clone();
    let start = Instant::now();
    assert!(!tasks.shutdown(Duration::from_secs(10)).await);
    assert_eq!(start.elapsed().as_secs(), 10);
    assert!(
        timeout(Duration::ZERO, dropped).await.unwrap().is_err(),
        "an aborted task releases what it holds"
    );
    assert!(timeout(Duration::from_secs(60), handle.failed()).await.is_err());
}
