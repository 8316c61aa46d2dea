//! Progress as server-sent events: the latest state, not too often, and always the last one.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Between two events.
const PACE: Duration = Duration::from_millis(200);

/// Between two signs of life where nothing changes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The answer that tells of each state, until one has `ended` or the daemon does.
pub(super) fn answer<T>(
    states: watch::Receiver<T>,
    ended: fn(&T) -> bool,
    shutdown: CancellationToken,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>>
where
    T: Clone + Serialize + Send + Sync + 'static,
{
    let events =
        latest(states, ended, PACE).take_until(shutdown.cancelled_owned()).filter_map(|state| async move {
            let event = Event::default().json_data(&state);
            event
                .inspect_err(|error| {
                    tracing::error!(%error, "a state cannot be written as JSON: {error}; please report this line");
                })
                .ok()
                .map(Ok)
        });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("still here"))
}

/// The present state, then what it has become at most once per `pace`. Ends after a state that has `ended`, which is
/// not kept waiting, or when nobody changes the state any more.
pub(super) fn latest<T>(
    states: watch::Receiver<T>,
    ended: fn(&T) -> bool,
    pace: Duration,
) -> impl Stream<Item = T> + Send
where
    T: Clone + Send + Sync + 'static,
{
    futures::stream::unfold(Some((states, None::<Instant>)), move |position| async move {
        let (mut states, not_before) = position?;
        if let Some(not_before) = not_before {
            states.changed().await.ok()?;
            tokio::select! {
                () = sleep_until(not_before) => {}
                // An error means that this is the last state: it does not wait either.
                () = async { drop(states.wait_for(ended).await) } => {}
            }
        }
        let state = states.borrow_and_update().clone();
        let next = (!ended(&state)).then(|| (states, Some(Instant::now() + pace)));
        Some((state, next))
    })
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::*;

    const PACE: Duration = Duration::from_millis(200);

    fn is_ended(state: &u32) -> bool {
        *state >= 100
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_state_comes_at_once_and_the_others_at_the_pace() {
        let (sender, receiver) = watch::channel(0);
        let mut states = std::pin::pin!(latest(receiver, is_ended, PACE));
        let start = Instant::now();
        assert_eq!(states.next().await, Some(0));
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::spawn(async move {
            for state in 1..=50 {
                sender.send_replace(state);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            sender.send_replace(100);
            std::future::pending::<()>().await;
        });
        let rest: Vec<u32> = states.collect().await;
        assert_eq!(rest.last(), Some(&100), "the last state is always told");
        assert!(rest.len() <= 4, "500 ms have room for 2 states and the last: {rest:?}");
        assert_eq!(start.elapsed(), Duration::from_millis(500), "the end does not wait for its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_is_server_sent_events_and_ends_with_the_daemon() {
        let (_sender, receiver) = watch::channel(7);
        let shutdown = CancellationToken::new();
        let response = answer(receiver, is_ended, shutdown.clone()).into_response();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "data: 7\n\n");
        assert_eq!(body.next().await.unwrap().unwrap(), ": still here\n\n");
        shutdown.cancel();
        assert!(body.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_state_that_has_ended_is_told_once() {
        let (_sender, receiver) = watch::channel(100);
        assert_eq!(latest(receiver, is_ended, PACE).collect::<Vec<_>>().await, [100]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_state_of_a_sender_that_is_gone_is_told() {
        let (sender, receiver) = watch::channel(0);
        let mut states = std::pin::pin!(latest(receiver, is_ended, PACE));
        assert_eq!(states.next().await, Some(0));
        sender.send_replace(7);
        drop(sender);
        assert_eq!(states.next().await, Some(7));
        assert_eq!(states.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_change_is_not_told_again() {
        let (sender, receiver) = watch::channel(0);
        let mut states = std::pin::pin!(latest(receiver, is_ended, PACE));
        assert_eq!(states.next().await, Some(0));
        assert!(tokio::time::timeout(Duration::from_secs(60), states.next()).await.is_err());
        drop(sender);
    }
}
