//! Clients of the REST interface that look at how long each answer takes.
//!
//! Two kinds: one that asks at a constant rate, whether the answers come or not, and one that asks when it has the answer to
//! the question before. Each speaks plain HTTP/1.1 on connections that stay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use super::maestro::encoded;

/// How long answers took, the shortest first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Of these, in whatever order.
    pub(crate) fn new(mut all: Vec<Duration>) -> Latencies {
        all.sort_unstable();
        Latencies(all)
    }

    /// The time within which so many of a hundred were there.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let place = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    /// The longest time.
    pub(crate) fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

/// Asks at `rate` questions a second, over so many connections, and counts from when a question was due: an answer that holds
/// up the next question is late for that one too.
///
/// # Errors
/// Where an answer is no success.
pub(crate) async fn at_rate(
    server: SocketAddr,
    paths: &Arc<Vec<String>>,
    rate: f64,
    connections: usize,
    lasting: Duration,
) -> Result<Latencies> {
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(server).await?);
    }
    let began = Instant::now() + Duration::from_millis(50);
    let questions = (rate * lasting.as_secs_f64()) as usize;
    let asking = (0..).zip(clients).map(|(first, mut client): (usize, Client)| {
        let paths = Arc::clone(paths);
        tokio::spawn(async move {
            let mut took = Vec::with_capacity(questions / connections + 1);
            for question in (first..questions).step_by(connections) {
                let due = began + Duration::from_secs_f64(question as f64 / rate);
                sleep_until(due.into()).await;
                client.ask(&paths[question % paths.len()]).await?;
                took.push(due.elapsed());
            }
            anyhow::Ok(took)
        })
    });
    let all = try_join_all(asking).await?.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Latencies::new(all.concat()))
}

/// How long somebody waits who asks one question after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For one answer: it is given up then, and has taken as long.
    pub(crate) each: Duration,
    /// For all: the questions that are left then are not asked.
    pub(crate) all: Duration,
}

/// Searches for each of these paths, one after another, and goes on with the next page until there are `results` or no more
/// pages: what somebody waits for who wants to see as many. Returns how long each took, in order, of those that were asked.
///
/// # Errors
/// Where an answer is no success.
pub(crate) async fn one_by_one(
    server: SocketAddr,
    paths: &[String],
    results: usize,
    patience: Patience,
) -> Result<Vec<Duration>> {
    let mut client = Client::connect(server).await?;
    let mut took = Vec::with_capacity(paths.len());
    let all_began = Instant::now();
    for path in paths.iter().take_while(|_| all_began.elapsed() < patience.all) {
        let began = Instant::now();
        match timeout(patience.each, client.search(path, results)).await {
            Ok(done) => done?,
            // What is still to come on this connection nobody waits for.
            Err(_) => client = Client::connect(server).await?,
        }
        took.push(began.elapsed());
    }
    Ok(took)
}

struct Client {
    sender: SendRequest<Empty<Bytes>>,
    host: String,
    connection: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    async fn connect(server: SocketAddr) -> Result<Client> {
        let tcp = TcpStream::connect(server).await.with_context(|| format!("cannot connect to {server}"))?;
        tcp.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(tcp)).await?;
        let connection = tokio::spawn(async move {
            // That it broke, whoever asks next is told.
            let _ = connection.await;
        });
        Ok(Client { sender, host: server.to_string(), connection })
    }

    async fn ask(&mut self, path: &str) -> Result<Bytes> {
        self.sender.ready().await?;
        let request = Request::get(path).header("host", &self.host).body(Empty::new())?;
        let answer = self.sender.send_request(request).await?;
        ensure!(answer.status() == StatusCode::OK, "{path} is answered with {}", answer.status());
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    async fn search(&mut self, path: &str, results: usize) -> Result<()> {
        let (mut found, mut page) = (0, path.to_owned());
        loop {
            let answer: serde_json::Value = serde_json::from_slice(&self.ask(&page).await?)?;
            found += answer["files"].as_array().map_or(0, Vec::len);
            match answer["next"].as_str().filter(|_| found < results) {
                Some(cursor) => page = format!("{path}&cursor={}", encoded(cursor)),
                None => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const HELD_UP: Duration = Duration::from_millis(300);

    /// Answers all questions at once, but holds up each answer to `/slow`.
    async fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(len @ 1..) = tcp.read(&mut buffer).await {
                        let status = match &buffer[..len] {
                            asked if asked.starts_with(b"GET /missing") => "404 Not Found",
                            asked => {
                                if asked.starts_with(b"GET /slow") {
                                    tokio::time::sleep(HELD_UP).await;
                                }
                                "200 OK"
                            }
                        };
                        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
                        tcp.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn who_is_held_up_is_late_for_the_next_question_too() {
        let paths = Arc::new(["/slow", "/a", "/b", "/c"].map(str::to_owned).to_vec());
        let lasting = Duration::from_millis(40);
        let seen = at_rate(server().await, &paths, 100.0, 1, lasting).await.unwrap();
        assert_eq!(seen.0.len(), 4);
        assert!(seen.percentile(25.0) > HELD_UP / 2, "the others wait behind the first: {seen:?}");
    }

    const PATIENCE: Patience = Patience { each: Duration::from_secs(60), all: Duration::from_secs(60) };

    #[tokio::test]
    async fn who_asks_one_by_one_is_late_for_nothing_else() {
        let paths = ["/slow", "/a", "/b", "/c"].map(str::to_owned);
        let took = one_by_one(server().await, &paths, 1, PATIENCE).await.unwrap();
        assert!(took[0] >= HELD_UP && took[1..].iter().all(|took| *took < HELD_UP / 2), "{took:?}");
    }

    #[tokio::test]
    async fn what_takes_too_long_is_given_up_and_counts_as_long() {
        let paths = ["/slow", "/a", "/slow", "/b"].map(str::to_owned);
        let short = Patience { each: HELD_UP / 6, ..PATIENCE };
        let took = one_by_one(server().await, &paths, 1, short).await.unwrap();
        assert_eq!(took.len(), 4);
        assert!(took.iter().step_by(2).all(|took| (HELD_UP / 6..HELD_UP).contains(took)), "{took:?}");
        let short = Patience { all: HELD_UP / 2, ..PATIENCE };
        let took = one_by_one(server().await, &paths, 1, short).await.unwrap();
        assert_eq!(took.len(), 1, "{took:?}");
    }

    #[tokio::test]
    async fn an_answer_that_is_no_success_is_an_error() {
        let paths = ["/a".to_owned(), "/missing".to_owned()];
        let error = one_by_one(server().await, &paths, 1, PATIENCE).await.unwrap_err();
        assert!(error.to_string().contains("/missing is answered with 404"), "{error}");
    }

    #[test]
    fn percentiles_are_of_what_was_seen() {
        let seen = Latencies::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(seen.percentile(50.0), Duration::from_millis(50));
        assert_eq!(seen.percentile(99.0), Duration::from_millis(99));
        assert_eq!(
            (seen.percentile(100.0), seen.longest()),
            (Duration::from_millis(100), Duration::from_millis(100))
        );
        assert_eq!(Latencies::new(Vec::new()).percentile(50.0), Duration::ZERO);
    }
}
