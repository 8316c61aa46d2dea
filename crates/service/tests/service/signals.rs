//! Signals, sent to this very process. One test: handlers are the whole process's.

use std::time::Duration;

use p2p_service::signals::{Signal, Signals};
use rustix::process::{Signal as Number, getpid, kill_process};

#[tokio::test]
async fn each_signal_arrives_even_the_second_request_to_end() {
    let mut signals = Signals::install().unwrap();
    for (number, expected) in [
        (Number::HUP, Signal::Reload),
        (Number::TERM, Signal::Terminate),
        (Number::TERM, Signal::Terminate),
        (Number::INT, Signal::Terminate),
        (Number::HUP, Signal::Reload),
    ] {
        kill_process(getpid(), number).unwrap();
        let arrived = tokio::time::timeout(Duration::from_secs(5), signals.next()).await.unwrap();
        assert_eq!(arrived, expected);
    }
}
