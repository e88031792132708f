//! Tells the service manager how the proxy is, the way sd_notify(3) does: a datagram to the socket that the environment
//! names. Nobody listens: nothing happens.

use std::{env, ffi::OsStr, io, os::unix::net::UnixDatagram};

/// Sends lines like `READY=1`.
pub(crate) fn tell(state: &str) {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&socket, state) {
        tracing::warn!(%error, socket = %socket.display(), "the service manager cannot be told");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let datagram = UnixDatagram::unbound()?;
    #[cfg(target_os = "linux")]
    {
        use std::os::{
            linux::net::SocketAddrExt as _,
            unix::{ffi::OsStrExt as _, net::SocketAddr},
        };
        if let Some(name) = socket.as_bytes().strip_prefix(b"@") {
            let address = SocketAddr::from_abstract_name(name)?;
            return datagram.send_to_addr(state.as_bytes(), &address).map(|_| ());
        }
    }
    datagram.send_to(state.as_bytes(), socket).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_with_a_path_hears_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1\n").unwrap();
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"READY=1\n");
        assert!(send(dir.path().join("nobody").as_os_str(), "READY=1\n").is_err());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_hears_it() {
        use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
        let name = format!("mesh-notify-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        send(OsStr::new(&format!("@{name}")), "MAINPID=7\n").unwrap();
        let mut heard = [0; 64];
        let length = manager.recv(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"MAINPID=7\n");
    }
}
