//! The limit of open files: a connection through the proxy takes up to two.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Fewer than this are worth a word: the proxy may run out of them before it refuses connections by its own limits.
const FEW: u64 = 4096;

/// Raises the soft limit to the hard one. The soft one is often 1024, for programs that use `select`; nothing here does.
pub fn raise() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    if let Some(most) = getrlimit(Resource::Nofile).current
        && most < FEW
    {
        tracing::warn!(
            most,
            "few files may be open: raise the limit (ulimit -n) for more than a few connections"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        raise();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
