//! The two messages of `grpc.health.v1.Health/Check` (grpc/doc/health-checking.md).

use bytes::{BufMut as _, Bytes, BytesMut};

/// Path of the method.
pub(crate) const CHECK: &str = "/grpc.health.v1.Health/Check";

/// A `HealthCheckRequest` in its gRPC frame. None: the name is longer than any that can be configured.
pub(crate) fn question(service: &str) -> Option<Bytes> {
    let length = u16::try_from(service.len()).ok().filter(|length| *length < 0x4000)?;
    // The field `service` (1) and its length, a varint: seven bits in each byte, the lowest first.
    let (low, high) = ((length & 0x7f) as u8, (length >> 7) as u8);
    let field: &[u8] = match (low, high) {
        (0, 0) => &[],
        (_, 0) => &[0x0a, low],
        _ => &[0x0a, low | 0x80, high],
    };
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::from(length) + field.len() as u32);
    bytes.put_slice(field);
    bytes.put_slice(service.as_bytes());
    Some(bytes.freeze())
}

/// True for a `HealthCheckResponse` whose `status` (field 1) is `SERVING` (1).
pub(crate) fn is_serving(answer: &[u8]) -> bool {
    matches!(answer, [0, 0, 0, 0, _, 0x08, 0x01, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_messages_are_as_the_protocol_says() {
        assert_eq!(question("").unwrap(), Bytes::from_static(&[0, 0, 0, 0, 0]));
        assert_eq!(question("a.B").unwrap(), Bytes::from_static(b"\x00\x00\x00\x00\x05\x0a\x03a.B"));
        let head = |length: usize| question(&"x".repeat(length)).unwrap()[..8].to_vec();
        assert_eq!(head(127), [0, 0, 0, 0, 129, 0x0a, 0x7f, b'x']);
        assert_eq!(head(128), [0, 0, 0, 0, 131, 0x0a, 0x80, 1]);
        assert_eq!(head(4096), [0, 0, 0, 0x10, 3, 0x0a, 0x80, 0x20]);
        assert!(question(&"x".repeat(0x4000)).is_none());
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        for bad in [&[0, 0, 0, 0, 2, 8, 2][..], &[0, 0, 0, 0, 0], &[], &[1, 0, 0, 0, 2, 8, 1]] {
            assert!(!is_serving(bad), "{bad:?}");
        }
    }
}
