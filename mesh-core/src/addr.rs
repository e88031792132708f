//! Roles of socket addresses as types, so that one cannot stand in for another.

use std::{fmt, net::SocketAddr};

macro_rules! role {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

role! {
    /// Where the application believed it was connecting, before a firewall rule redirected it.
    OrigDst
}
role! {
    /// The other end of an accepted connection.
    PeerAddr
}
role! {
    /// Where a listener of ours stands.
    ListenAddr
}
role! {
    /// Where an endpoint takes connections: the inbound port of its proxy, or of an application outside the mesh.
    EndpointAddr
}
role! {
    /// Where the application beside a proxy listens.
    AppAddr
}
