//! Calls of the proxy's own application: discover, route, balance, send to the peer's proxy.

mod destinations;
mod http;
mod plan;
mod table;
mod tcp;
mod transparent;

pub(crate) use self::{
    destinations::Destinations, http::by_host as http, plan::Services, tcp::declared as tcp,
    transparent::serve as transparent,
};
