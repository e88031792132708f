//! What is wrong with the resources, where, and what to do about it.

use std::{fmt, sync::Arc};

use mesh_core::name::ObjectRef;

/// A place in the source directory; of an object of Kubernetes its kind, namespace and name, without a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The file, relative to the source directory.
    pub file: Arc<str>,
    /// The line, from 1. Of an object: that of its document's first key. 0: there are no lines.
    pub line: u32,
}

impl Place {
    /// Another line of the same file.
    #[must_use]
    pub fn at(&self, line: u32) -> Self {
        Self { file: Arc::clone(&self.file), line }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Something wrong with an object or a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// The object, if it could be told.
    pub object: Option<ObjectRef>,
    /// Where.
    pub place: Place,
    /// Path of the field, as in `spec.backends[1].weight`; empty: the whole object.
    pub field: String,
    /// What is wrong, with the value and what was expected.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// True: the object is refused whole, and the last good version of it stays. False: it applies, but for what the
    /// message says.
    pub refused: bool,
    /// True: it is refused for another object, which has already what this one asks for.
    pub is_conflict: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without a line the place is the object's own name.
        if self.place.line > 0 || self.object.is_none() {
            write!(f, "{}: ", self.place)?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}
