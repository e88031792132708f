//! Choosing one of several: by weight among backends, by load or by hash among endpoints, and which of them count.

pub mod ewma;
pub mod hash;
pub mod health;
pub mod locality;
pub mod maglev;
pub mod outlier;
pub mod p2c;
pub mod ring;
pub mod slow_start;
pub mod weighted;
