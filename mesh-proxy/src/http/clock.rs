//! Time limits of one exchange. Where none is set there is no clock, and no timer.

use std::{
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::{reason::TIMEOUT_HEADER, resilience::deadline};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep, sleep_until};

use super::exchange::Progress;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const MESH_TIMEOUT: HeaderName = HeaderName::from_static(TIMEOUT_HEADER);

/// By how much two proxies may differ about when a deadline is reached.
const SLACK: Duration = Duration::from_millis(10);

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// That of the exchange.
    Whole,
    /// That of one try.
    Try,
}

/// The limits of one exchange.
pub(crate) struct Clock {
    timer: Pin<Box<Sleep>>,
    deadline: Option<Instant>,
    idle: Option<Idle>,
}

/// A limit of silence.
struct Idle {
    after: Duration,
    /// When something was last known to move.
    last: Instant,
    /// Bytes of the request so far, which move too, and how many there were at `last`.
    sent: (Rc<Progress>, u64),
}

impl Clock {
    /// A clock for what is to end at `deadline`.
    pub(crate) fn until(deadline: Option<Instant>, now: Instant) -> Self {
        let first = deadline.unwrap_or(now + Duration::from_secs(3600));
        Self { timer: Box::pin(sleep_until(first.into())), deadline, idle: None }
    }

    /// Limits silence too; `sent` counts the bytes of the request.
    pub(crate) fn idle(&mut self, after: Duration, sent: Rc<Progress>, now: Instant) {
        let so_far = sent.bytes.get();
        self.idle = Some(Idle { after, last: now, sent: (sent, so_far) });
    }

    /// Notes that something came back.
    pub(crate) fn touch(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.last = Instant::now();
        }
    }

    /// Whether a wait of `time` would end before the deadline.
    pub(crate) fn allows(&self, time: Duration) -> bool {
        self.deadline.is_none_or(|deadline| Instant::now() + time < deadline)
    }

    /// True when the deadline is reached, as far as two proxies can agree on that: the next one may be the first to give
    /// up.
    pub(crate) fn is_over(&self) -> bool {
        !self.allows(SLACK)
    }

    /// Tells the next hop how much time is left: gRPC's own field, and the mesh's where a proxy listens.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, grpc: bool, proxy: bool) {
        let Some(deadline) = self.deadline else { return };
        let left = deadline.saturating_duration_since(Instant::now());
        if grpc && let Ok(value) = HeaderValue::try_from(deadline::format_grpc(left)) {
            headers.insert(GRPC_TIMEOUT, value);
        }
        if proxy {
            headers.insert(MESH_TIMEOUT, HeaderValue::from(deadline::format_mesh(left)));
        } else {
            // Of a try before, which went to a proxy.
            headers.remove(MESH_TIMEOUT);
        }
    }

    /// Ready when a limit is reached; `trial` is that of the try.
    pub(crate) fn poll_expired(&mut self, cx: &mut Context<'_>, trial: Option<Instant>) -> Poll<Expired> {
        loop {
            let idle = self.idle.as_ref().map(|idle| idle.last + idle.after);
            let Some(next) = [self.deadline, trial, idle].into_iter().flatten().min() else {
                return Poll::Pending;
            };
            // A timer that is early only asks once more; setting it anew for every frame would cost more.
            if next < self.timer.deadline().into_std() {
                self.timer.as_mut().reset(next.into());
            }
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let reached = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if reached(self.deadline) {
                return Poll::Ready(Expired::Whole);
            }
            if reached(trial) {
                return Poll::Ready(Expired::Try);
            }
            if reached(idle)
                && let Some(idle) = &mut self.idle
            {
                if idle.sent.0.bytes.get() == idle.sent.1 {
                    return Poll::Ready(Expired::Whole);
                }
                idle.sent.1 = idle.sent.0.bytes.get();
                idle.last = now;
            }
            let idle = self.idle.as_ref().map(|idle| idle.last + idle.after);
            let next = [self.deadline, trial, idle].into_iter().flatten().min();
            self.timer.as_mut().reset(next.unwrap_or(now + Duration::from_secs(3600)).into());
        }
    }
}

/// How long a caller may be silent within a body.
pub(super) struct Patience {
    limit: Duration,
    /// Begins when the body is waited for, which most are not.
    timer: Option<Pin<Box<Sleep>>>,
    /// Something came since it began.
    came: bool,
}

impl Patience {
    /// Begins when it is first asked.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, timer: None, came: false }
    }

    /// How long it may be silent.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Notes that something came.
    pub(super) fn touch(&mut self) {
        self.came = true;
    }

    /// Ready when nothing came for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, progress: &Progress) -> Poll<()> {
        loop {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.limit)));
            ready!(timer.as_mut().poll(cx));
            if !self.came && !progress.answered.get() {
                return Poll::Ready(());
            }
            (self.timer, self.came) = (None, false);
        }
    }
}

/// How long a body may be silent that is sent although its response is over.
pub(crate) struct Silence {
    limit: Duration,
    progress: Option<Rc<Progress>>,
}

impl Silence {
    /// Where no other limit is known: what `--body-idle` is by default.
    pub(super) const USUAL: Duration = Duration::from_secs(60);

    pub(super) fn new(limit: Duration, progress: Option<Rc<Progress>>) -> Self {
        Self { limit, progress }
    }

    /// Returns when nothing came for that long, at most twice as long, with the response over all the time.
    pub(crate) async fn lasts(&self, over: impl Fn() -> bool) {
        let state = || (over(), self.progress.as_ref().map_or(0, |progress| progress.bytes.get()));
        loop {
            let before = state();
            sleep(self.limit).await;
            if before.0 && state() == before {
                return;
            }
        }
    }
}

/// The time that a gRPC caller gives.
pub(crate) fn of_grpc(headers: &HeaderMap) -> Option<Duration> {
    deadline::parse_grpc(headers.get(GRPC_TIMEOUT)?.to_str().ok()?)
}

/// The time that a peer's proxy gives.
pub(super) fn of_peer(headers: &HeaderMap) -> Option<Duration> {
    deadline::parse_mesh(headers.get(MESH_TIMEOUT)?.to_str().ok()?)
}

pin_project! {
    /// A future within the limits of a clock; without one, just the future.
    pub(crate) struct Within<'a, F> {
        #[pin]
        inner: F,
        clock: Option<&'a mut Clock>,
        trial: Option<Instant>,
    }
}

/// Waits for `inner` as long as `clock` and the limit of this try allow.
pub(crate) fn within<'a, F: Future>(
    clock: Option<&'a mut Clock>,
    trial: Option<Instant>,
    inner: F,
) -> Within<'a, F> {
    Within { inner, clock, trial }
}

impl<F: Future> Future for Within<'_, F> {
    type Output = Result<F::Output, Expired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.inner.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        match this.clock {
            Some(clock) => clock.poll_expired(cx, *this.trial).map(Err),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_limit_counts() {
        let now = Instant::now();
        let mut clock = Clock::until(Some(now + Duration::from_secs(3600)), now);
        let trial = Some(now + Duration::from_millis(1));
        let never = std::future::pending::<()>();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(within(Some(&mut clock), trial, never).await, Err(Expired::Try));
        let mut over = Clock::until(Some(now), now);
        let never = std::future::pending::<()>();
        assert_eq!(within(Some(&mut over), None, never).await, Err(Expired::Whole));
        assert_eq!(within(Some(&mut over), None, async { 7 }).await, Ok(7), "what is there is taken");
        assert!(!over.allows(Duration::ZERO) && clock.allows(Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn silence_is_limited_while_nothing_moves() {
        let now = Instant::now();
        let sent = Rc::<Progress>::default();
        let mut clock = Clock::until(None, now);
        clock.idle(Duration::from_millis(60), Rc::clone(&sent), now);
        let moves = async {
            for _ in 0..8 {
                sleep(Duration::from_millis(20)).await;
                sent.bytes.set(sent.bytes.get() + 1);
            }
        };
        assert_eq!(within(Some(&mut clock), None, moves).await, Ok(()));
        let never = std::future::pending::<()>();
        assert_eq!(within(Some(&mut clock), None, never).await, Err(Expired::Whole));
    }

    #[test]
    fn what_is_left_is_told() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _guard = runtime.enter();
        let now = Instant::now();
        let clock = Clock::until(Some(now + Duration::from_secs(5)), now);
        let mut headers = HeaderMap::new();
        clock.tell(&mut headers, true, true);
        for left in [of_grpc(&headers).unwrap(), of_peer(&headers).unwrap()] {
            assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4), "{left:?}");
        }
    }
}
