//! Active health checks: what a row of answers says about an endpoint.

use crate::settings::HealthCheck;

/// What the checks of one endpoint have shown.
#[derive(Clone, Debug)]
pub struct Checked {
    healthy: bool,
    /// Answers in a row that speak against the present state.
    against: u32,
}

impl Default for Checked {
    /// An endpoint that was not asked yet gets calls: it may be the only one.
    fn default() -> Self {
        Self { healthy: true, against: 0 }
    }
}

impl Checked {
    /// True when the endpoint gets calls.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Counts an answer. True: the state changed.
    pub fn count(&mut self, good: bool, settings: &HealthCheck) -> bool {
        if good == self.healthy {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let limit = if self.healthy { settings.unhealthy } else { settings.healthy };
        if self.against < limit.max(1) {
            return false;
        }
        *self = Self { healthy: good, against: 0 };
        true
    }
}
