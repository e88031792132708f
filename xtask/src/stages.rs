//! Stages of a long command: each is announced, timed, and listed at the end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// The stages that ran so far.
#[derive(Default)]
pub(crate) struct Stages {
    done: Vec<(&'static str, Duration)>,
    left_out: Vec<String>,
}

impl Stages {
    /// Runs one stage; its error says which stage it was.
    pub(crate) fn run<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("== {name}");
        let start = Instant::now();
        let result = work().with_context(|| format!("stage `{name}` failed"));
        let took = start.elapsed();
        println!("== {name}: {:.1} s", took.as_secs_f64());
        self.done.push((name, took));
        result
    }

    /// Notes something that could not run here, and why.
    pub(crate) fn leave_out(&mut self, what: String) {
        self.left_out.push(what);
    }

    /// Prints each stage's time, the sum, and what was left out.
    pub(crate) fn print(&self) {
        println!("\nstage               seconds");
        for (name, took) in &self.done {
            println!("{name:<20}{:>7.1}", took.as_secs_f64());
        }
        let total: Duration = self.done.iter().map(|(_, took)| *took).sum();
        println!("{:<20}{:>7.1}", "total", total.as_secs_f64());
        for what in &self.left_out {
            println!("left out: {what}");
        }
    }
}
