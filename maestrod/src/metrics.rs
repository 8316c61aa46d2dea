//! What is counted, for `GET /metrics`. Each server has its own counters; nothing is global.
//!
//! Counted where it happens, by the edges and the Sync streams; what the directory holds is put in when somebody asks.
//! What each one means is in `docs/operations.md`, which a test compares with the names here.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::census::Standing;

/// Media type of the answer: what Prometheus calls OpenMetrics.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A call over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpCall {
    route: String,
    method: String,
    status: u16,
}

/// A path of the REST interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// A call of a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerCall {
    call: &'static str,
}

/// How a peer stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// The counters of one server.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    http: Family<HttpCall, Counter>,
    http_duration: Family<Route, Histogram, fn() -> Histogram>,
    http_limited: Family<Route, Counter>,
    calls: Family<PeerCall, Counter>,
    /// Streams that are open now.
    pub(crate) streams: Gauge,
    /// Streams that were not let in, or sent what is not valid.
    pub(crate) streams_refused: Counter,
    /// Batches of changes applied.
    pub(crate) batches: Counter,
    /// Changes in them.
    pub(crate) changes: Counter,
    /// Catalogs that were asked for again since they differed.
    pub(crate) resyncs: Counter,
    /// Differences that were found and mended part by part.
    pub(crate) repairs: Counter,
    /// Files that were set right by them.
    pub(crate) files_repaired: Counter,
    /// Peers that were forgotten, not having been seen for long.
    pub(crate) forgotten: Counter,
    peers: Family<State, Gauge>,
    files: Gauge,
    bytes: Gauge,
    contents: Gauge,
    names_unindexed: Gauge,
    database: Gauge,
    database_reachable: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut registry = Registry::with_prefix("maestrod");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The program", version);
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0005, 2.5, 12));
        let metrics = Metrics {
            http: Family::default(),
            http_duration: Family::new_with_constructor(buckets),
            http_limited: Family::default(),
            calls: Family::default(),
            streams: Gauge::default(),
            streams_refused: Counter::default(),
            batches: Counter::default(),
            changes: Counter::default(),
            resyncs: Counter::default(),
            repairs: Counter::default(),
            files_repaired: Counter::default(),
            forgotten: Counter::default(),
            peers: Family::default(),
            files: Gauge::default(),
            bytes: Gauge::default(),
            contents: Gauge::default(),
            names_unindexed: Gauge::default(),
            database: Gauge::default(),
            database_reachable: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Answers of the REST interface", metrics.http.clone());
        registry.register_with_unit(
            "http_request_duration",
            "How long they took",
            Unit::Seconds,
            metrics.http_duration.clone(),
        );
        registry.register("http_limited", "Requests over a client's limit", metrics.http_limited.clone());
        registry.register("grpc_requests", "Questions of peers", metrics.calls.clone());
        registry.register("sync_streams", "Sync streams that are open", metrics.streams.clone());
        registry.register("sync_streams_refused", "Sync streams refused", metrics.streams_refused.clone());
        registry.register("sync_batches", "Batches of changes applied", metrics.batches.clone());
        registry.register("sync_changes", "Changes in them", metrics.changes.clone());
        registry.register("sync_resyncs", "Catalogs asked for again", metrics.resyncs.clone());
        registry.register("sync_repairs", "Differences mended part by part", metrics.repairs.clone());
        let repaired = metrics.files_repaired.clone();
        registry.register("sync_files_repaired", "Files set right by them", repaired);
        registry.register("peers_forgotten", "Peers forgotten", metrics.forgotten.clone());
        registry.register("peers", "Peers that are known", metrics.peers.clone());
        registry.register("files", "Files of the peers that are here", metrics.files.clone());
        registry.register_with_unit("files", "Their bytes", Unit::Bytes, metrics.bytes.clone());
        registry.register("contents", "Different contents that are known", metrics.contents.clone());
        registry.register("names_unindexed", "Names not in the text index", metrics.names_unindexed.clone());
        registry.register_with_unit(
            "database",
            "Size of the database",
            Unit::Bytes,
            metrics.database.clone(),
        );
        registry.register(
            "database_reachable",
            "Whether the database answers",
            metrics.database_reachable.clone(),
        );
        Metrics { registry, ..metrics }
    }

    /// A request to this route was answered.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, took: Duration) {
        let (route, method) = (route.to_owned(), method.to_owned());
        self.http_duration.get_or_create(&Route { route: route.clone() }).observe(took.as_secs_f64());
        self.http.get_or_create(&HttpCall { route, method, status }).inc();
    }

    /// A request to this route was one too many.
    pub(crate) fn limited(&self, route: &str) {
        self.http_limited.get_or_create(&Route { route: route.to_owned() }).inc();
    }

    /// A peer asked.
    pub(crate) fn asked(&self, call: &'static str) {
        self.calls.get_or_create(&PeerCall { call }).inc();
    }

    /// All of it as text, with what the directory holds. `None`: its database cannot be reached.
    pub(crate) fn text(&self, standing: Option<&Standing>) -> String {
        self.database_reachable.set(i64::from(standing.is_some()));
        if let Some(standing) = standing {
            self.take(standing);
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn take(&self, standing: &Standing) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let held = &standing.held;
        for (state, count) in
            [("connected", standing.connected), ("here", held.peers_here), ("known", held.peers_known)]
        {
            self.peers.get_or_create(&State { state }).set(gauge(count));
        }
        self.files.set(gauge(held.files));
        self.bytes.set(gauge(held.bytes));
        self.contents.set(gauge(standing.contents.unwrap_or(0)));
        self.names_unindexed.set(gauge(held.names_unindexed));
        self.database.set(gauge(held.database_bytes));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_is_documented() {
        let metrics = Metrics::new();
        metrics.answered("/", "GET", 200, Duration::from_millis(1));
        metrics.limited("/");
        metrics.asked("Locate");
        let text = metrics.text(Some(&Standing::default()));
        let told: BTreeSet<String> = text
            .lines()
            .filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split_once(' ')?.0.to_owned()))
            .collect();
        assert!(
            text.contains("maestrod_http_requests_total{route=\"/\",method=\"GET\",status=\"200\"} 1"),
            "{text}"
        );
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
        let page = std::fs::read_to_string(path).unwrap();
        let documented: BTreeSet<String> = page
            .lines()
            .filter_map(|line| Some(line.strip_prefix("| `maestrod_")?.split_once('`')?.0))
            .map(|name| format!("maestrod_{}", name.strip_suffix("_total").unwrap_or(name)))
            .collect();
        let documented: BTreeSet<String> = documented
            .into_iter()
            .map(|name| name.strip_suffix("_info").unwrap_or(&name).to_owned())
            .collect();
        assert_eq!(told, documented);
    }
}
