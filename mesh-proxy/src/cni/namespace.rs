//! Enters a pod's network namespace, for one function.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::Path,
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::reply::{Code, Failure};

/// Runs a function within the namespace of that file, on a thread that ends with it.
pub(super) fn within<T: Send>(path: &Path, act: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    let failed = |error: &io::Error| {
        Failure::new(Code::Io, format!("cannot enter the network namespace {}", path.display()), error)
    };
    let file = File::open(path).map_err(|error| failed(&error))?;
    if is_own(&file).map_err(|error| failed(&error))? {
        let message = format!("{} is the network of the node itself", path.display());
        return Err(Failure::new(Code::Environment, message, &"no rules are written there"));
    }
    let enter = || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(act())
    };
    let done = thread::scope(|scope| {
        thread::Builder::new().spawn_scoped(scope, enter).map(thread::ScopedJoinHandle::join)
    });
    match done {
        Ok(Ok(done)) => done.map_err(|error: io::Error| failed(&error)),
        Ok(Err(_)) => Err(failed(&io::Error::other("the thread for it has ended"))),
        Err(error) => Err(failed(&error)),
    }
}

fn is_own(file: &File) -> io::Result<bool> {
    let (own, other) = (fs::metadata("/proc/self/ns/net")?, file.metadata()?);
    Ok((own.dev(), own.ino()) == (other.dev(), other.ino()))
}
