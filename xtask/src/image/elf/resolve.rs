//! Looks hosts up in an empty root, as a binary in an image does: one in /etc/hosts, one that only a DNS server knows. A
//! program of its own, which a test compiles as images' binaries are.

use std::net::{ToSocketAddrs as _, UdpSocket};

fn main() {
    let root = std::env::args().nth(1).expect("the folder that becomes the root");
    let server = UdpSocket::bind("127.0.0.1:53").expect("a namespace with a loopback of its own");
    std::os::unix::fs::chroot(&root).expect("root");
    std::env::set_current_dir("/").expect("the new root");
    std::thread::spawn(move || serve(&server));
    for host in ["controller.in-hosts", "controller.in-dns"] {
        match (host, 0).to_socket_addrs() {
            Ok(found) => println!("{host} {:?}", found.map(|address| address.ip()).collect::<Vec<_>>()),
            Err(error) => println!("{host} {error}"),
        }
    }
}

/// Answers each question for an A record with 192.0.2.7, and others with nothing.
fn serve(socket: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let name = query[12..length].iter().position(|byte| *byte == 0).expect("a name ends");
        let question = &query[12..12 + name + 5];
        let is_a = question[name + 1..name + 3] == [0, 1];
        let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0], question].concat();
        if is_a {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        }
        socket.send_to(&answer, from).expect("sent");
    }
}
