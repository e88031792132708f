//! Choosing one of several: by weight among backends, by load among endpoints.

pub mod ewma;
pub mod p2c;
pub mod weighted;
