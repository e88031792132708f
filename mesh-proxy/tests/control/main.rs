//! The control side of a real proxy against a scripted controller, over real sockets.

mod bootstrap;
mod discovery;
mod rig;
mod state;
