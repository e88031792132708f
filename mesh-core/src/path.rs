//! One reading of a path, so that what policy saw is what the application gets.
//!
//! Where a rule looks at paths, the path is normalised before it is matched and forwarded in that form (RFC 3986
//! section 6.2.2: percent-encoded unreserved characters are decoded, dot segments are removed; repeated slashes are
//! merged). What two servers could still read differently is refused.

use std::borrow::Cow;

/// The path can be read in more than one way: an encoded slash, backslash or NUL, a bare backslash, a `;` parameter in
/// a dot segment, a broken percent-encoding, or no leading slash.
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
    let plain = !bytes.iter().any(|b| !b.is_ascii() || matches!(b, b'%' | b'\\' | b';' | 0))
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
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' | 0 => return Err(Ambiguous),
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).ok_or(Ambiguous);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                let value = (high * 16 + low) as u8;
                match value {
                    b'/' | b'\\' | 0 => return Err(Ambiguous),
                    _ if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') => {
                        out.push(char::from(value));
                    }
                    // Encoded twice: the next server could decode once more.
                    b'%' => return Err(Ambiguous),
                    _ => out.push_str(&format!("%{value:02X}")),
                }
            }
            _ if byte.is_ascii() => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(out)
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
                // Some servers drop ";…" first and see a dot segment then.
                let bare = segment.split(';').next().unwrap_or_default();
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
