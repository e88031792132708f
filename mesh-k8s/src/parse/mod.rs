//! Reads one file: documents, then objects, each checked alone.

use crate::{object::Located, problem::Problem};

/// Reads one YAML file. `file` is its name relative to the source directory.
///
/// Returned are the good objects, what is wrong, and whether every document could at least be recognised. An object
/// that was recognised but refused is named by a [`Problem`] with `refused`: its last good version stays. When the last
/// value is false, some document could not even be recognised: the last good version of every object of this file that
/// is not among the returned ones stays.
#[must_use]
pub fn parse(_file: &str, _text: &str) -> (Vec<Located>, Vec<Problem>, bool) {
    (Vec::new(), Vec::new(), true)
}
