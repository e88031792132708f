//! UDP passes untouched in both directions, whatever its ports are, but for questions of DNS where these are wanted.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use rustix::{process::Uid, thread::set_thread_uid};

use super::{
    namespace::Namespace,
    skips::{PATIENCE, PROXY, place},
};

/// Larger than what a link takes at once.
const LARGE: usize = 5000;

/// The user of an application.
const APP: u32 = 65534;

/// Addresses of outside and pod: both families.
const ENDS: [(&str, &str); 2] = [("10.77.1.1", "10.77.1.2"), ("[fd77:1::1]", "[fd77:1::2]")];

/// A socket within a namespace, of this user.
fn bind(namespace: &Namespace, user: u32, at: &str) -> UdpSocket {
    let socket = namespace.within(|| {
        // Ports below 1024 are root's.
        let socket = (user == 0).then(|| UdpSocket::bind(at).unwrap_or_else(|error| panic!("{at}: {error}")));
        socket.unwrap_or_else(|| {
            set_thread_uid(Uid::from_raw(user)).unwrap();
            UdpSocket::bind(at).unwrap()
        })
    });
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends datagrams back to where they came from, after a word that says who does, until the namespace's end.
fn echo(namespace: &Namespace, at: &str, word: &'static str) {
    let socket = bind(namespace, 0, at);
    socket.set_read_timeout(None).unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[word.as_bytes(), &buffer[..length]].concat(), from);
        }
    });
}

/// Who answers a datagram of this size, which must come back whole and from where it was sent to.
fn ask(client: &UdpSocket, to: &str, size: usize) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let question = vec![b'.'; size];
    client.send_to(&question, to).unwrap();
    let mut buffer = vec![0; 65_536];
    match client.recv_from(&mut buffer) {
        Ok((length, from)) => {
            assert_eq!(from, to, "an answer from somebody else");
            let (word, rest) = buffer[..length].split_at(length - size);
            assert!(rest == question, "{to}: {} bytes", rest.len());
            String::from_utf8_lossy(word).into_owned()
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused".to_owned(),
        Err(_) => "silence".to_owned(),
    }
}

/// Both namespaces, with what answers UDP: outside and in the pod at ports at which rules lead TCP away, and what
/// resolves names on the pod's loopback.
fn answering() -> Option<(Namespace, Namespace)> {
    let (pod, outside) = place()?;
    for (out, inside) in ENDS {
        for port in [53, 80, 15001, 15053] {
            echo(&outside, &format!("{out}:{port}"), "outside");
        }
        for port in [53, 7000, 9999, 15001, 15006] {
            echo(&pod, &format!("{inside}:{port}"), "pod");
        }
        echo(&pod, &format!("{inside}:15053"), "resolver");
    }
    echo(&pod, "127.0.0.1:15053", "resolver");
    echo(&pod, "[::1]:15053", "resolver");
    Some((pod, outside))
}

#[test]
fn it_is_left_alone_but_for_questions_that_are_wanted() {
    let Some((pod, outside)) = answering() else { return };
    for (flags, resolver) in [
        ("", "outside"),
        ("--dns-port 15053", "resolver"),
        ("--dns-port 15053 --skip-outbound-port 53", "outside"),
        ("--dns-port 15053 --skip-outbound-cidr 10.77.0.0/16,fd77::/16", "outside"),
    ] {
        pod.init(&format!("--proxy-uid {PROXY} {flags}"));
        for (out, inside) in ENDS {
            // A socket that is bound to the address, and one that is not.
            for from in [inside, if inside.starts_with('[') { "[::]" } else { "0.0.0.0" }] {
                let client = bind(&pod, APP, &format!("{from}:0"));
                for port in [80, 15001, 15053] {
                    for size in [0, 1, 1200, LARGE] {
                        let who = ask(&client, &format!("{out}:{port}"), size);
                        assert_eq!(who, "outside", "{flags:?}: {size} bytes to {out}:{port}");
                    }
                }
                assert_eq!(ask(&client, &format!("{out}:53"), 30), resolver, "{flags:?}: from {from}");
                assert_eq!(ask(&client, &format!("{inside}:7000"), 30), "pod", "{flags:?}: to itself");
            }
            // The proxy's own questions go where they are sent to.
            let proxy = bind(&pod, PROXY, &format!("{inside}:0"));
            assert_eq!(ask(&proxy, &format!("{out}:53"), 30), "outside", "{flags:?}");
            // What comes in; the answer goes out from a port at which questions are sent.
            let caller = bind(&outside, APP, &format!("{out}:0"));
            for port in [53, 7000, 9999, 15001, 15006] {
                for size in [1, LARGE] {
                    assert_eq!(ask(&caller, &format!("{inside}:{port}"), size), "pod", "{flags:?}: {port}");
                }
            }
        }
    }
}

/// Where questions of DNS go is closed to others.
#[test]
fn the_resolver_answers_nobody_else() {
    let Some((pod, outside)) = answering() else { return };
    for (out, inside) in ENDS {
        let caller = bind(&outside, APP, &format!("{out}:0"));
        pod.init(&format!("--proxy-uid {PROXY}"));
        assert_eq!(ask(&caller, &format!("{inside}:15053"), 30), "resolver", "it is nobody's yet");
        pod.init(&format!("--proxy-uid {PROXY} --dns-port 15053"));
        let caller = bind(&outside, APP, &format!("{out}:0"));
        caller.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert_eq!(ask(&caller, &format!("{inside}:15053"), 30), "silence");
        // The same path carries others.
        assert_eq!(ask(&caller, &format!("{inside}:7000"), 30), "pod");
    }
}
