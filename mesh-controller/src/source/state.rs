//! What is in force of an object of a cluster, for those who tell it so.

use std::sync::Arc;

use kube::core::ApiResource;
use mesh_core::name::ObjectRef;

/// A version of an object, as the API server knows it.
#[derive(Debug, PartialEq)]
pub(crate) struct Observed {
    /// The object.
    pub(crate) reference: ObjectRef,
    /// Where the API server has it.
    pub(crate) resource: ApiResource,
    /// Tells it from others that had its name.
    pub(crate) uid: Arc<str>,
    /// Grows with each change of what it asks for.
    pub(crate) generation: i64,
}

/// What is in force of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Force {
    /// Its newest version.
    Newest,
    /// The newest version is refused; an older one stays.
    Kept,
    /// No version.
    Nothing,
}

/// The newest version of an object, and what is in force.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// The newest version.
    pub(crate) observed: Arc<Observed>,
    /// What is in force.
    pub(crate) force: Force,
}

impl State {
    /// True when the version that is in force now was in force `before`.
    pub(crate) fn is_in_force_since(&self, before: &Self) -> bool {
        let is_same = *self.observed == *before.observed;
        let is_known = self.observed.uid == before.observed.uid;
        match (before.force, self.force) {
            (Force::Newest, Force::Newest) | (Force::Nothing, Force::Nothing) => is_same,
            (Force::Newest | Force::Kept, Force::Kept) => is_known,
            (Force::Kept | Force::Nothing, Force::Newest)
            | (Force::Nothing, Force::Kept)
            | (Force::Newest | Force::Kept, Force::Nothing) => false,
        }
    }
}
