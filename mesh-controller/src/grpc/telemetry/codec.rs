//! Reads a report within bounds: an empty edge takes 2 bytes of a message, but hundreds in memory.

use prost::{
    DecodeError, Message,
    bytes::Buf,
    encoding::{DecodeContext, decode_key, skip_field},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use mesh_proto::telemetry::v1::{ReportRequest, ReportResponse};

/// Most edges that are read of one report; a proxy keeps 2000 apart, and an overflow edge per direction.
pub(super) const MAX_EDGES: usize = 2100;
/// Number of the field `edges` of `ReportRequest`.
const EDGES_FIELD: u32 = 3;

/// A report, and how many of its edges were left out because there are too many.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// With no more than [`MAX_EDGES`] edges.
    pub(super) report: ReportRequest,
    /// Edges beyond.
    pub(super) left_out: usize,
}

/// Decodes reports, encodes their answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReportCodec;

impl Codec for ReportCodec {
    type Encode = ReportResponse;
    type Decode = Received;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for ReportCodec {
    type Item = ReportResponse;
    type Error = Status;

    fn encode(&mut self, item: ReportResponse, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buf).map_err(|e| Status::internal(e.to_string()))
    }
}

impl Decoder for ReportCodec {
    type Item = Received;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Received>, Status> {
        read(buf).map(Some).map_err(|e| Status::invalid_argument(format!("the report is malformed: {e}")))
    }
}

/// As `Message::decode`, but edges beyond the limit are passed over and counted.
fn read(buf: &mut impl Buf) -> Result<Received, DecodeError> {
    let mut received = Received::default();
    while buf.has_remaining() {
        let (field, wire_type) = decode_key(buf)?;
        if field == EDGES_FIELD && received.report.edges.len() >= MAX_EDGES {
            skip_field(wire_type, field, buf, DecodeContext::default())?;
            received.left_out += 1;
        } else {
            received.report.merge_field(field, wire_type, buf, DecodeContext::default())?;
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use mesh_proto::telemetry::v1::EdgeSummary;

    use super::*;

    fn report(edges: usize) -> ReportRequest {
        ReportRequest {
            workload: None,
            instance: "a".into(),
            edges: vec![EdgeSummary::default(); edges],
            uptime_millis: 7,
        }
    }

    #[test]
    fn edges_beyond_the_limit_are_not_built() {
        for (sent, kept) in [(0, 0), (3, 3), (MAX_EDGES, MAX_EDGES), (1_000_000, MAX_EDGES)] {
            let received = read(&mut report(sent).encode_to_vec().as_slice()).unwrap();
            assert_eq!(received.report, report(kept), "{sent}");
            assert!(received.report.edges.capacity() <= 2 * MAX_EDGES);
            assert_eq!(received.left_out, sent - kept);
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let mut bytes = report(3).encode_to_vec();
        bytes.extend([0x1a, 9]);
        assert!(read(&mut bytes.as_slice()).is_err());
        assert!(read(&mut [0xff; 20].as_slice()).is_err());
        let mut bytes = report(MAX_EDGES).encode_to_vec();
        bytes.extend([0x1a, 9]);
        assert!(read(&mut bytes.as_slice()).is_err());
    }
}
