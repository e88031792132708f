//! How long to measure.

use super::cells::{self, Cell};

/// One of the ways to run the bench. Times in seconds.
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    /// Times that each cell is measured.
    pub(crate) rounds: usize,
    /// For one run of a cell that has a bar.
    pub(crate) barred: f64,
    /// For one run of any other; None: those are left out.
    pub(crate) others: Option<f64>,
    /// For one run at the fixed rate.
    pub(crate) paced: f64,
    /// For one run under which memory is measured.
    pub(crate) memory: f64,
    /// Before memory counts as idle.
    pub(crate) idle: f64,
    /// True if missing the bars is a failure.
    pub(crate) gated: bool,
}

/// At most ten minutes alone on a machine.
pub(crate) const FULL: Plan = Plan {
    name: "full",
    rounds: 5,
    barred: 1.5,
    others: Some(0.6),
    paced: 2.5,
    memory: 1.0,
    idle: 30.0,
    gated: true,
};

/// At most two minutes.
pub(crate) const QUICK: Plan = Plan {
    name: "quick",
    rounds: 3,
    barred: 0.5,
    others: None,
    paced: 1.2,
    memory: 0.5,
    idle: 5.0,
    gated: true,
};

/// Whether the bench itself works: its numbers say little.
pub(crate) const SMOKE: Plan = Plan {
    name: "smoke",
    rounds: 1,
    barred: 0.2,
    others: Some(0.2),
    paced: 0.3,
    memory: 0.2,
    idle: 1.0,
    gated: false,
};

impl Plan {
    /// Seconds of one run of a cell; None: it is left out.
    pub(crate) fn seconds(&self, cell: &Cell) -> Option<f64> {
        if cell.envoy_bar.is_some() { Some(self.barred) } else { self.others }
    }

    /// The cells that are measured, of those whose name begins with one of `only`, if there are any.
    pub(crate) fn cells(&self, only: &[String]) -> Vec<Cell> {
        let wanted = |cell: &Cell| only.is_empty() || only.iter().any(|start| cell.name.starts_with(start));
        cells::all().into_iter().filter(|cell| self.seconds(cell).is_some() && wanted(cell)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_runs_measure_what_has_a_bar() {
        assert!(QUICK.cells(&[]).iter().all(|cell| cell.envoy_bar.is_some()));
        assert!(FULL.cells(&[]).len() > QUICK.cells(&[]).len());
        let names: Vec<_> = FULL.cells(&["grpc".to_owned()]).iter().map(|cell| cell.name).collect();
        assert_eq!(names, ["grpc-unary", "grpc-streaming", "grpc-unary-shared"]);
    }
}
