//! Kubernetes resources of the mesh: their types, reading them from YAML, and lowering them to what proxies are told.
//!
//! ```text
//! text ── document ──▶ tree ── parse ──▶ Located objects ── compile ──▶ Compiled ── destination ──▶ Destination
//!          (split)     (yaml)   (checks one object)   (checks what refers to what)   (answers one key)
//! ```
//! An object of a Kubernetes API server goes the same way from `tree` on ([`parse_object`]).
//!
//! [`parse`] refuses objects one at a time, with file, line, field and a remedy; the caller keeps the last good version
//! of what was refused. [`compile`] is pure and deterministic and never fails: what does not fit is reported and left
//! out. *Invariant:* nothing here does I/O, and no input can make it panic.

mod compile;
pub mod crd;
pub mod inject;
pub mod labels;
pub mod names;
mod nearest;
mod object;
mod parse;
mod problem;
pub mod source;

pub use compile::{Compiled, Resolved, Settings, compile, compile_with};
pub use object::*;
pub use parse::{Document, documents, parse, parse_object};
pub use problem::{Place, Problem};
