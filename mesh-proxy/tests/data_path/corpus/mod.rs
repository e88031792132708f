//! Tables of bad input.

pub(crate) mod paths;
pub(crate) mod smuggling;
pub(crate) mod smuggling_h2;
