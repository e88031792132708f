//! One reading of a path, so that what policy saw is what the application gets.
//!
//! Where a rule looks at paths, the path is normalised before it is matched and forwarded in that form (RFC 3986
//! section 6.2.2: percent-encoded unreserved characters are decoded, dot segments are removed; repeated slashes are
//! merged). What two servers could still read differently is refused. What some servers read with less in it (path
//! parameters, trailing dots) or in another case is kept, and rules that deny see it as those servers would:
//! [`loosest`].

use std::borrow::Cow;

/// The path can be read in more than one way: an encoded slash, backslash or control character, a bare backslash, a `;`
/// parameter or a space in a dot segment, a broken percent-encoding, one that hides ASCII in overlong UTF-8, or no
/// leading slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path can be read in more than one way")]
pub struct Ambiguous;

/// Normalises the path of a request (without query). Borrows when nothing changes, which is nearly always.
///
/// # Errors
/// [`Ambiguous`], when no single reading is safe.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, Ambiguous> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(Ambiguous);
    }
    let bytes = path.as_bytes();
    let plain = !bytes.iter().any(|b| !matches!(b, 0x20..0x7f) || matches!(b, b'%' | b'\\' | b';'))
        && !bytes.windows(2).any(|pair| matches!(pair, b"//" | b"/."));
    if plain {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode_unreserved(bytes)?;
    remove_segments(&decoded).map(Cow::Owned)
}

fn decode_unreserved(bytes: &[u8]) -> Result<String, Ambiguous> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied();
    let mut last = 0;
    while let Some(byte) = rest.next() {
        let before = std::mem::replace(&mut last, byte);
        match byte {
            b'\\' | 0..0x20 | 0x7f => return Err(Ambiguous),
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(Ambiguous);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                let value = (high * 16 + low) as u8;
                last = value;
                match value {
                    b'/' | b'\\' | 0..0x20 | 0x7f => return Err(Ambiguous),
                    _ if is_overlong(before, value) => return Err(Ambiguous),
                    _ if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') => {
                        out.push(char::from(value));
                    }
                    // Encoded twice: the next server could decode once more.
                    b'%' => return Err(Ambiguous),
                    _ => out.push_str(&format!("%{value:02X}")),
                }
            }
            _ if byte.is_ascii() => out.push(char::from(byte)),
            _ if is_overlong(before, byte) => return Err(Ambiguous),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
}

/// The beginning of a UTF-8 sequence that is longer than it need be (RFC 3629 section 10): lax decoders find "/" or "."
/// in it.
fn is_overlong(before: u8, byte: u8) -> bool {
    matches!((before, byte), (_, 0xc0 | 0xc1) | (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f))
}

fn remove_segments(path: &str) -> Result<String, Ambiguous> {
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(Ambiguous)?;
            }
            _ => {
                // Some servers drop ";…" or spaces first and see a dot segment then.
                let bare = without_spaces(without_parameters(segment));
                if bare != segment && matches!(bare, "" | "." | "..") {
                    return Err(Ambiguous);
                }
                kept.push(segment);
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if directory || kept.is_empty() {
        out.push('/');
    }
    Ok(out)
}

fn without_parameters(segment: &str) -> &str {
    let starts = |at: usize| {
        let rest = segment.get(at..).unwrap_or_default();
        rest.starts_with(';') || ["%3B", "%3F", "%23"].iter().any(|encoded| rest.starts_with(encoded))
    };
    let end = segment.char_indices().map(|(at, _)| at).find(|&at| starts(at));
    segment.get(..end.unwrap_or(segment.len())).unwrap_or_default()
}

fn without_spaces(mut segment: &str) -> &str {
    while let Some(shorter) = segment.strip_suffix("%20") {
        segment = shorter;
    }
    segment
}

/// What the laxest of ordinary servers may take a normalised path for: each segment without its parameters (`;…`, also
/// encoded, and an encoded `?` or `#`) and without trailing dots and spaces. Case is the reader's to ignore.
#[must_use]
pub fn loosest(path: &str) -> Cow<'_, str> {
    if !path.bytes().any(|b| matches!(b, b';' | b'%' | b'.')) {
        return Cow::Borrowed(path);
    }
    let bare = |segment| {
        let mut bare = without_parameters(segment);
        loop {
            let shorter = without_spaces(bare.trim_end_matches('.'));
            if shorter == bare {
                return bare;
            }
            bare = shorter;
        }
    };
    let mut out = String::with_capacity(path.len());
    for segment in path.split('/').map(bare).filter(|segment| !segment.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    Cow::Owned(out)
}
