//! Metrics of the controller, Prometheus text format.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Outcome of a request for a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ResultLabel {
    result: &'static str,
}

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusalLabels {
    rpc: &'static str,
    code: &'static str,
}

/// Why a connection was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RefusedLabels {
    port: &'static str,
    reason: &'static str,
}

/// What was answered to an AdmissionReview.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct AdmissionLabels {
    webhook: &'static str,
    result: &'static str,
}

/// A webhook.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WebhookLabel {
    webhook: &'static str,
}

/// How watches of a cluster stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StateLabel {
    state: &'static str,
}

/// Outcome of a review of a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OutcomeLabel {
    outcome: &'static str,
}

/// A kind of objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct KindLabel {
    kind: &'static str,
}

/// All metrics. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    pub(crate) proxies: Gauge,
    pub(crate) generation: Gauge,
    pub(crate) problems: Gauge,
    pub(crate) objects: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) issuer_not_after: Gauge,
    pub(crate) root_not_after: Gauge,
    pub(crate) is_leader: Gauge,
    pub(crate) edges_dropped: Counter,
    pub(crate) push_seconds: Histogram,
    certificates: Family<ResultLabel, Counter>,
    token_reviews: Family<OutcomeLabel, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    connections_refused: Family<RefusedLabels, Counter>,
    watches: Family<StateLabel, Gauge>,
    watch_failures: Family<KindLabel, Counter>,
    admissions: Family<AdmissionLabels, Counter>,
    admission_seconds: Family<WebhookLabel, Histogram, fn() -> Histogram>,
}

/// Bounds of durations, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            proxies: Gauge::default(),
            generation: Gauge::default(),
            problems: Gauge::default(),
            objects: Gauge::default(),
            connections: Gauge::default(),
            issuer_not_after: Gauge::default(),
            root_not_after: Gauge::default(),
            is_leader: Gauge::default(),
            edges_dropped: Counter::default(),
            push_seconds: Histogram::new(SECONDS),
            certificates: Family::default(),
            token_reviews: Family::default(),
            refusals: Family::default(),
            connections_refused: Family::default(),
            watches: Family::default(),
            watch_failures: Family::default(),
            admissions: Family::default(),
            admission_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
        };
        metrics.registry = Arc::new(metrics.register());
        metrics
    }

    fn register(&self) -> Registry {
        let mut r = Registry::with_prefix("mesh_controller");
        r.register("proxies_connected", "Proxies whose discovery stream stands", self.proxies.clone());
        r.register("generation", "Number of the newest configuration", self.generation.clone());
        r.register("problems", "Things that are wrong with the configuration", self.problems.clone());
        r.register("objects", "Objects that apply", self.objects.clone());
        r.register("connections_active", "Connections at the control port", self.connections.clone());
        r.register(
            "issuer_not_after_seconds",
            "When the issuer expires, Unix time",
            self.issuer_not_after.clone(),
        );
        r.register("root_not_after_seconds", "When the root expires, Unix time", self.root_not_after.clone());
        r.register(
            "push_seconds",
            "Time from a new configuration to its sending, by stream",
            self.push_seconds.clone(),
        );
        r.register("certificates", "Requests for certificates, by result", self.certificates.clone());
        r.register(
            "token_reviews",
            "Kubernetes tokens that were looked at, by outcome",
            self.token_reviews.clone(),
        );
        r.register("is_leader", "1 while this replica leads", self.is_leader.clone());
        r.register("refusals", "Calls that were refused, by RPC and gRPC code", self.refusals.clone());
        r.register(
            "connections_refused",
            "Connections refused, by port and reason",
            self.connections_refused.clone(),
        );
        r.register("watches", "Kinds of Kubernetes objects, by how they are followed", self.watches.clone());
        r.register("watch_failures", "Lists and watches that failed, by kind", self.watch_failures.clone());
        r.register("admissions", "AdmissionReviews, by webhook and result", self.admissions.clone());
        r.register(
            "admission_seconds",
            "Time from a request to its answer, by webhook",
            self.admission_seconds.clone(),
        );
        r.register("edges_dropped", "Reported edges beyond the limit per proxy", self.edges_dropped.clone());
        r
    }

    /// Counts a request for a certificate.
    pub(crate) fn certificate(&self, result: &'static str) {
        self.certificates.get_or_create(&ResultLabel { result }).inc();
    }

    /// Counts a Kubernetes token that was looked at.
    pub(crate) fn token_review(&self, outcome: &'static str) {
        self.token_reviews.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a refused call.
    pub(crate) fn refusal(&self, rpc: &'static str, code: tonic::Code) {
        self.refusals.get_or_create(&RefusalLabels { rpc, code: code_name(code) }).inc();
    }

    /// Counts a refused connection.
    pub(crate) fn connection_refused(&self, port: &'static str, reason: &'static str) {
        self.connections_refused.get_or_create(&RefusedLabels { port, reason }).inc();
    }

    /// How many kinds of objects are in a state.
    pub(crate) fn watches(&self, state: &'static str, kinds: usize) {
        self.watches.get_or_create(&StateLabel { state }).set(i64::try_from(kinds).unwrap_or(i64::MAX));
    }

    /// Counts a list or watch that failed.
    pub(crate) fn watch_failed(&self, kind: &'static str) {
        self.watch_failures.get_or_create(&KindLabel { kind }).inc();
    }

    /// Counts an answer of a webhook, and the time that it took.
    pub(crate) fn admission(&self, webhook: &'static str, result: &'static str, took: Duration) {
        self.admissions.get_or_create(&AdmissionLabels { webhook, result }).inc();
        self.admission_seconds.get_or_create(&WebhookLabel { webhook }).observe(took.as_secs_f64());
    }

    /// All metrics as text.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
