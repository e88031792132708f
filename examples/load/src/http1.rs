//! As much of HTTP/1.1 as both ends need.

/// Bytes of the largest head that is read.
pub(crate) const MAX_HEAD: usize = 16 * 1024;

/// Length of the head that `bytes` begin with, its empty line included; None while it is not whole.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

/// Bytes asked for: N of a request that begins with `GET /bytes/N `.
pub(crate) fn wanted_bytes(head: &[u8]) -> Option<usize> {
    let path = head.strip_prefix(b"GET /bytes/")?;
    let end = path.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(path.get(..end)?).ok()?.parse().ok()
}

/// A request for `bytes` bytes.
pub(crate) fn request(host: &str, bytes: usize) -> String {
    format!("GET /bytes/{bytes} HTTP/1.1\r\nhost: {host}\r\nuser-agent: load\r\naccept: */*\r\n\r\n")
}

/// Status and content-length of a response's head; None if it has no such things.
pub(crate) fn status_and_length(head: &[u8]) -> Option<(u16, usize)> {
    let head = std::str::from_utf8(head).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    Some((status, length?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_read() {
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r"), None);
        assert_eq!(wanted_bytes(request("a", 64).as_bytes()), Some(64));
        assert_eq!(wanted_bytes(b"GET /other HTTP/1.1\r\n\r\n"), None);
        assert_eq!(wanted_bytes(b"POST /bytes/64 HTTP/1.1\r\n\r\n"), None);
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 64\r\n\r\n";
        assert_eq!(status_and_length(head), Some((200, 64)));
        assert_eq!(status_and_length(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
