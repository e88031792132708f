//! Reads TLS records off recorded bytes (RFC 8446 section 5.1), to say what was on the wire.

/// X25519MLKEM768 as a key share group (draft-ietf-tls-ecdhe-mlkem).
pub const X25519_MLKEM768: u16 = 0x11ec;
/// TLS 1.3 in `supported_versions` (RFC 8446 section 4.2.1).
pub const TLS13: u16 = 0x0304;

const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// Largest fragment of a record, with the room that encryption takes (RFC 8446 section 5.2).
const MAX_FRAGMENT: usize = (1 << 14) + 256;
/// `random` of a ServerHello that asks for another ClientHello (RFC 8446 section 4.1.3), its first bytes.
const RETRY_RANDOM: [u8; 8] = [0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11];

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Content type.
    pub kind: u8,
    /// Fragment; shorter than announced only when the recording ends in the record.
    pub fragment: &'a [u8],
}

/// What a server chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// Version from `supported_versions`; None: not sent, TLS 1.2 or older.
    pub version: Option<u16>,
    /// Group of the key share; None: not sent.
    pub group: Option<u16>,
    /// True: it asks for another ClientHello.
    pub retry: bool,
}

/// Splits bytes into records. A record may be cut off by the end of the recording.
///
/// # Errors
/// Says at which byte there is no TLS record.
pub fn parse(bytes: &[u8]) -> Result<Vec<Record<'_>>, String> {
    let mut records = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let shown = &rest[..rest.len().min(16)];
        let wrong = |what: &str| format!("byte {at}: {what}: {:?}", String::from_utf8_lossy(shown));
        if !(CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&rest[0]) {
            return Err(wrong("no content type of TLS"));
        }
        if rest.get(1).is_some_and(|major| *major != 3) || rest.get(2).is_some_and(|minor| *minor > 3) {
            return Err(wrong("no version of TLS"));
        }
        let Some(header) = rest.get(..5) else { break };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length > MAX_FRAGMENT {
            return Err(wrong("too long for a TLS record"));
        }
        let end = (5 + length).min(rest.len());
        records.push(Record { kind: rest[0], fragment: &rest[5..end] });
        at += end;
    }
    Ok(records)
}

/// Reads the first ServerHello that is not a retry, out of what a server sent.
///
/// # Errors
/// When the server sent anything else than TLS, or no ServerHello.
pub fn server_hello(to_client: &[u8]) -> Result<ServerHello, String> {
    let records = parse(to_client)?;
    let hellos = records.iter().filter(|record| record.kind == HANDSHAKE);
    let parsed = hellos.map(|record| read_server_hello(record.fragment).ok_or("no ServerHello"));
    for hello in parsed {
        match hello? {
            hello if hello.retry => {}
            hello => return Ok(hello),
        }
    }
    Err("no ServerHello".into())
}

/// Checks both directions of one connection: TLS 1.3, key share of `group`, and after the hellos nothing but encrypted
/// records.
///
/// # Errors
/// Says what else was on the wire.
pub fn only_tls13(to_server: &[u8], to_client: &[u8], group: u16) -> Result<(), String> {
    let from_client = parse(to_server).map_err(|e| format!("from the client: {e}"))?;
    let from_server = parse(to_client).map_err(|e| format!("from the server: {e}"))?;
    for (side, records, hello) in [("client", &from_client, 1), ("server", &from_server, 2)] {
        let first = records.first().ok_or_else(|| format!("nothing from the {side}"))?;
        if first.kind != HANDSHAKE || first.fragment.first() != Some(&hello) {
            return Err(format!("the {side} did not begin with a hello"));
        }
        let open = |record: &&Record<'_>| !matches!(record.kind, CHANGE_CIPHER_SPEC | APPLICATION_DATA);
        if let Some(record) = records[1..].iter().find(open) {
            // Hellos are repeated after a retry; nothing else is ever sent in the open.
            if record.kind != HANDSHAKE || record.fragment.first() != Some(&hello) {
                return Err(format!("the {side} sent content type {} in the open", record.kind));
            }
        }
    }
    let hello = server_hello(to_client)?;
    if hello.version != Some(TLS13) || hello.group != Some(group) {
        return Err(format!("the server chose {hello:x?}, wanted TLS 1.3 with group {group:#x}"));
    }
    Ok(())
}

fn read_server_hello(fragment: &[u8]) -> Option<ServerHello> {
    let mut rest = Reader(fragment);
    if rest.number(1)? != 2 {
        return None;
    }
    rest.take(3 + 2)?;
    let random = rest.take(32)?;
    let session = rest.number(1)?;
    rest.take(session + 2 + 1)?;
    let length = rest.number(2)?;
    let mut extensions = Reader(rest.take(length)?);
    let mut hello = ServerHello { version: None, group: None, retry: random.starts_with(&RETRY_RANDOM) };
    while let Some(kind) = extensions.number(2) {
        let length = extensions.number(2)?;
        let mut body = Reader(extensions.take(length)?);
        match kind {
            43 => hello.version = Some(u16::try_from(body.number(2)?).ok()?),
            51 => hello.group = Some(u16::try_from(body.number(2)?).ok()?),
            _ => {}
        }
    }
    Some(hello)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tls_is_told() {
        for (bytes, part) in [
            (b"GET / HTTP/1.1\r\n".as_slice(), "byte 0"),
            (b"\x16\x03\x01\x00\x01a\x17\x03\x03\x00\x01bGET", "byte 12"),
            (b"\x17\x03\x03\xff\xff", "too long"),
            (b"\x17\x02\x00\x00\x01a", "version"),
        ] {
            let error = parse(bytes).expect_err("no TLS");
            assert!(error.contains(part), "{error}");
        }
        let cut = Record { kind: 23, fragment: b"abc" };
        assert_eq!(parse(b"\x17\x03\x03\x00\x05abc"), Ok(vec![cut]), "the recording ends in a record");
        assert_eq!(parse(b""), Ok(vec![]));
        assert_eq!(parse(b"\x17\x03\x03"), Ok(vec![]));
        only_tls13(b"", b"", X25519_MLKEM768).expect_err("nothing was recorded");
    }
}
