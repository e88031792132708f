//! What keeps calls and workloads going when something fails: state machines without clock and chance of their own.

pub mod breaker;
pub mod budget;
pub mod concurrency;
pub mod deadline;
pub mod keep;
pub mod rate;
pub mod retry;
