//! The limit of open files.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one: the soft one is often 1024, for programs that use `select`.
pub(crate) fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it does not work, what needs more says so.
    let _ = setrlimit(Resource::Nofile, limit);
}
