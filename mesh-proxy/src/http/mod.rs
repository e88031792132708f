//! HTTP between connections: serving, header hygiene, bodies that count, answers that the proxy makes itself.

pub(crate) mod authority;
pub(crate) mod body;
mod check;
pub(crate) mod clock;
pub(crate) mod exchange;
pub(crate) mod expect;
mod frames;
mod front;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod grpc_health;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod headers;
mod incoming;
pub(crate) mod interim;
pub(crate) mod replay;
pub(crate) mod reply;
pub(crate) mod serve;
pub(crate) mod upgrade;

use std::future::Future;

/// Runs hyper's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> hyper::rt::Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
