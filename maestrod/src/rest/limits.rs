//! How much one client may ask of the REST interface, and how much of what is large goes on at once.
//!
//! A client is an address, or the network of one for IPv6, where everybody has many. Who asks too often is told when to
//! come back; registrations that are large wait for their turn before they are read. The rule is pure (`Clients`).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use p2p_service::problem::Problem;
use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::metrics::Metrics;

/// Clients that are told apart. Beyond that, those who have not asked lately are forgotten, and then all others are one.
const MAX_CLIENTS: usize = 10_000;
/// A body of at most so many bytes is read at once.
const SMALL_BODY_BYTES: u64 = 64 * 1024;
/// Larger bodies that are read and taken at the same time.
const LARGE_AT_ONCE: usize = 4;
/// How long a large body waits for its turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// So many in so long a time, all at once if need be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    most: u32,
    per: Duration,
}

/// Who asked how much lately: for each client, the time at which it will have made up for it.
#[derive(Debug, Default)]
struct Clients {
    even_at: HashMap<Option<IpAddr>, Instant>,
}

impl Clients {
    /// Takes one request, or says how long to wait for the next.
    fn admit(&mut self, client: IpAddr, rate: Rate, now: Instant) -> Result<(), Duration> {
        let mut key = Some(network_of(client));
        if self.even_at.len() >= MAX_CLIENTS && !self.even_at.contains_key(&key) {
            self.even_at.retain(|_, even_at| *even_at > now);
            if self.even_at.len() >= MAX_CLIENTS {
                key = None;
            }
        }
        let each = rate.per / rate.most;
        let even_at = self.even_at.entry(key).or_insert(now);
        let debt = even_at.saturating_duration_since(now) + each;
        match debt.checked_sub(rate.per) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => {
                *even_at = now + debt;
                Ok(())
            }
        }
    }
}

fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6((u128::from(address) & (u128::MAX << 64)).into())
        }
        address => address,
    }
}

/// A request that is counted once it is answered.
pub(super) struct Asked {
    route: String,
    method: String,
    began: Instant,
}

/// What the limits know.
#[derive(Clone)]
pub(crate) struct Limits {
    settings: watch::Receiver<Arc<Config>>,
    metrics: Arc<Metrics>,
    requests: Arc<Mutex<Clients>>,
    registrations: Arc<Mutex<Clients>>,
    large: Arc<Semaphore>,
}

impl Limits {
    pub(crate) fn new(settings: watch::Receiver<Arc<Config>>, metrics: Arc<Metrics>) -> Limits {
        Limits {
            settings,
            metrics,
            requests: Arc::default(),
            registrations: Arc::default(),
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
        }
    }

    /// Notes a request, and answers it where its client is over the limit.
    pub(super) fn ask(&self, request: &Request) -> (Asked, Option<Response>) {
        let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_owned();
        // Any word is a method to HTTP, and each that is counted by itself is kept for good.
        let method = match *request.method() {
            Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS => request.method().to_string(),
            _ => "other".to_owned(),
        };
        let asked = Asked { route, method, began: Instant::now() };
        let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|caller| caller.0.ip());
        let most = self.settings.borrow().rest.requests_per_sec;
        let admitted =
            client.map_or(Ok(()), |client| self.admit(&self.requests, client, most, Duration::from_secs(1)));
        let refusal = admitted.err().map(|wait| {
            self.metrics.limited(&asked.route);
            let detail = format!("more than {most} requests in a second came from this address");
            too_many(&detail, "[rest] requests_per_sec of the maestro's configuration is the limit", wait)
        });
        (asked, refusal)
    }

    /// Counts it.
    pub(super) fn answered(&self, asked: Asked, status: StatusCode) {
        let Asked { route, method, began } = asked;
        self.metrics.answered(&route, &method, status.as_u16(), began.elapsed());
    }

    fn admit(
        &self,
        clients: &Mutex<Clients>,
        client: IpAddr,
        most: u32,
        per: Duration,
    ) -> Result<(), Duration> {
        if most == 0 {
            return Ok(());
        }
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.admit(client, Rate { most, per }, Instant::now())
    }
}

/// Middleware of `/register`: refuses a client that registers too often, and has large bodies take turns.
pub(super) async fn limit_registrations(
    State(limits): State<Limits>,
    ConnectInfo(caller): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let most = limits.settings.borrow().rest.registrations_per_min;
    if let Err(wait) = limits.admit(&limits.registrations, caller.ip(), most, Duration::from_secs(60)) {
        limits.metrics.limited("/register");
        let detail = format!("more than {most} registrations in a minute came from this address");
        return too_many(
            &detail,
            "[rest] registrations_per_min of the maestro's configuration is the limit",
            wait,
        );
    }
    // What does not say its length may be large.
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length <= SMALL_BODY_BYTES) {
        return next.run(request).await;
    }
    match tokio::time::timeout(TURN_TIMEOUT, limits.large.acquire()).await {
        Ok(Ok(_turn)) => next.run(request).await,
        Ok(Err(_)) | Err(_) => retry_after(
            Problem::unavailable("busy", "large registrations of others are being read")
                .hint("register again after the time in Retry-After"),
            Duration::from_secs(1),
        ),
    }
}

fn too_many(detail: &str, hint: &str, wait: Duration) -> Response {
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests");
    retry_after(problem.detail(detail).hint(hint), wait)
}

/// The problem, with the time after which to try again.
pub(super) fn retry_after(problem: Problem, wait: Duration) -> Response {
    let secs = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let mut response = problem.into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs.max(1)));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { most: 10, per: Duration::from_secs(1) };

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_client_may_ask_so_much_and_then_as_fast_as_the_rate() {
        let (mut clients, start) = (Clients::default(), Instant::now());
        for _ in 0..10 {
            assert_eq!(clients.admit(client(1), RATE, start), Ok(()));
        }
        let wait = Duration::from_millis(100);
        assert_eq!(clients.admit(client(1), RATE, start), Err(wait));
        assert_eq!(clients.admit(client(2), RATE, start), Ok(()), "others are others");
        assert_eq!(clients.admit(client(1), RATE, start + wait), Ok(()));
        assert_eq!(clients.admit(client(1), RATE, start + wait), Err(wait));
        // Whoever was quiet may ask at once again.
        let later = start + Duration::from_secs(5);
        assert!((0..10).all(|_| clients.admit(client(1), RATE, later).is_ok()));
        assert!(clients.admit(client(1), RATE, later).is_err());
    }

    #[test]
    fn however_many_clients_come_the_memory_is_bounded() {
        let (mut clients, start) = (Clients::default(), Instant::now());
        let admitted =
            (0..50_000).filter(|number| clients.admit(client(*number), RATE, start).is_ok()).count();
        // Those beyond the limit share what one may.
        assert_eq!((admitted, clients.even_at.len()), (MAX_CLIENTS + 10, MAX_CLIENTS + 1));
        let later = start + Duration::from_secs(2);
        assert_eq!(clients.admit(client(60_000), RATE, later), Ok(()));
        assert_eq!(clients.even_at.len(), 1, "those who are even are forgotten");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::2:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    proptest! {
        /// In no stretch of time does a client get more than the burst and what the rate gives.
        #[test]
        fn the_rate_holds(gaps in prop::collection::vec(0u64..300, 1..200)) {
            let (mut clients, start) = (Clients::default(), Instant::now());
            let (mut now, mut admitted) = (start, Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                if clients.admit(client(1), RATE, now).is_ok() {
                    admitted.push(now);
                }
            }
            for (index, first) in admitted.iter().enumerate() {
                for (count, last) in (1..).zip(&admitted[index..]) {
                    let allowed = 10.0 + (*last - *first).as_secs_f64() * 10.0 + 1e-6;
                    prop_assert!(f64::from(count) <= allowed, "{} in {:?}", count, *last - *first);
                }
            }
        }
    }
}
