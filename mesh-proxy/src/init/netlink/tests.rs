//! The bytes are what the kernel reads: lengths, nesting, padding; and answers are read without trust.

use proptest::prelude::*;

use super::{
    super::{
        model::{Is, Match, Verdict},
        plan::{Plan, Senders},
        tests::plans,
    },
    message::HEADER,
    socket::{Answer, KernelError, parse, verdict},
    *,
};

/// A message as it was read back: type, flags, number, family, attributes.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    attributes: &'a [u8],
}

/// Reads messages as the kernel does: a wrong length is a failure.
fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize;
        assert!(length >= HEADER + 4 && length <= bytes.len() && length.is_multiple_of(4));
        let half = |at: usize| u16::from_ne_bytes(bytes[at..at + 2].try_into().unwrap());
        let sequence = u32::from_ne_bytes(bytes[8..12].try_into().unwrap());
        let attributes = &bytes[HEADER + 4..length];
        found.push(Message { kind: half(4), flags: half(6), sequence, attributes });
        bytes = &bytes[length..];
    }
    found
}

/// Reads attributes at one level: type without flags, whether it is nested, value.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, bool, &[u8])> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        let kind = u16::from_ne_bytes([bytes[2], bytes[3]]);
        assert!(length >= 4 && length <= bytes.len());
        let value = &bytes[4..length];
        found.push((kind & 0x7fff, kind & 0x8000 != 0, value));
        let padded = length.next_multiple_of(4);
        assert!(bytes[length..padded].iter().all(|b| *b == 0));
        bytes = &bytes[padded..];
    }
    found
}

/// Walks into every nested attribute.
fn walk(bytes: &[u8], depth: usize) {
    assert!(depth < 8);
    for (_, nested, value) in attributes(bytes) {
        if nested {
            walk(value, depth + 1);
        }
    }
}

/// Names of a rule's expressions.
fn expressions(rule: &[u8]) -> Vec<String> {
    let of = |bytes, wanted| attributes(bytes).into_iter().find(|(kind, ..)| *kind == wanted).unwrap().2;
    let name = |element| {
        let text = of(element, 1);
        String::from_utf8(text[..text.len() - 1].to_vec()).unwrap()
    };
    attributes(of(rule, 4)).into_iter().map(|(_, _, element)| name(element)).collect()
}

#[test]
fn a_transaction_begins_replaces_and_ends() {
    let plan = Plan { proxy: Senders { users: vec![7], ..Senders::default() }, ..Plan::sample() };
    let transaction = replace(&plan.table());
    let all = messages(&transaction.bytes);
    let kinds: Vec<u16> = all.iter().map(|message| message.kind).collect();
    assert_eq!(kinds[..4], [0x10, 0xa00, 0xa02, 0xa00]);
    assert_eq!(*kinds.last().unwrap(), 0x11);
    let sequences: Vec<u32> = all.iter().map(|message| message.sequence).collect();
    assert!(sequences.iter().enumerate().all(|(at, sequence)| at as u32 == *sequence));
    // Only the last one before the end is to be acknowledged.
    let acknowledged: Vec<u32> = all.iter().filter(|m| m.flags & 4 != 0).map(|m| m.sequence).collect();
    assert_eq!(acknowledged, [transaction.last]);
    assert_eq!(transaction.last as usize, all.len() - 2);
    let rules: Vec<_> = all.iter().filter(|m| m.kind == 0xa06).map(|m| expressions(m.attributes)).collect();
    assert!(rules.contains(&vec!["meta".into(), "cmp".into(), "immediate".into()]), "skuid 7 jump");
    assert!(rules.contains(&["meta", "cmp", "immediate", "redir"].map(String::from).to_vec()), "redirect");
}

#[test]
fn a_family_and_a_protocol_are_checked_once() {
    let cidr = |text: &str| text.parse().unwrap();
    let when =
        vec![Match::Source(Is::Equal, cidr("10.0.0.0/8")), Match::Destination(Is::Not, cidr("10.2.0.0/15"))];
    let mut out = Attributes::default();
    rule(&mut out, "t", "c", &Rule { when, then: Verdict::Reset, why: "test" });
    let mut batch = Batch::new();
    batch.add(NEW_RULE, 0, |attributes| *attributes = out);
    let (bytes, _) = batch.end();
    let names = expressions(messages(&bytes)[1].attributes);
    let expected = ["meta", "cmp", "payload", "cmp", "payload", "bitwise", "cmp", "meta", "cmp", "reject"];
    assert_eq!(names, expected);
}

fn answered(answers: &[Answer]) -> Result<(), KernelError> {
    verdict(&replace(&Plan::sample().table()), answers)
}

#[test]
fn errors_say_what_the_kernel_did_not_take() {
    let last = replace(&Plan::sample().table()).last;
    let ok = Answer { sequence: last, errno: 0 };
    answered(&[ok]).unwrap();
    let text = |answers: &[Answer]| answered(answers).unwrap_err().to_string();
    assert!(text(&[]).contains("did not confirm"));
    assert!(text(&[Answer { sequence: 0, errno: 1 }]).contains("NET_ADMIN"));
    assert!(text(&[Answer { sequence: 0, errno: 95 }]).contains("has no nf_tables"));
    let refused = text(&[Answer { sequence: last, errno: 2 }, ok]);
    assert!(refused.contains("redirect to :15001") && refused.contains("No such file"), "{refused}");
    assert!(text(&[Answer { sequence: u32::MAX, errno: 12 }]).contains("the transaction"));
}

proptest! {
    #[test]
    fn every_plan_is_well_formed(plan in plans()) {
        let table = plan.table();
        let transaction = replace(&table);
        let all = messages(&transaction.bytes);
        let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
        prop_assert_eq!(all.len(), rules + table.chains.len() + 5);
        prop_assert_eq!(transaction.steps.len(), all.len() - 2);
        all.iter().for_each(|message| walk(message.attributes, 0));
        prop_assert!(transaction.bytes.len() < 400 * 1024);
    }

    #[test]
    fn answers_are_read_without_trust(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut answers = Vec::new();
        parse(&bytes, &mut answers);
        prop_assert!(answers.len() <= bytes.len() / HEADER);
    }

    #[test]
    fn answers_are_found(errors in proptest::collection::vec((any::<u32>(), 0..4096_i32), 0..5)) {
        let mut datagram = Vec::new();
        for (sequence, errno) in &errors {
            datagram.extend(36_u32.to_ne_bytes());
            datagram.extend(2_u16.to_ne_bytes());
            datagram.extend(0_u16.to_ne_bytes());
            datagram.extend(sequence.to_ne_bytes());
            datagram.extend(0_u32.to_ne_bytes());
            datagram.extend((-errno).to_ne_bytes());
            datagram.extend([0; 16]);
        }
        let mut answers = Vec::new();
        parse(&datagram, &mut answers);
        let expected: Vec<_> = errors.iter().map(|&(sequence, errno)| Answer { sequence, errno }).collect();
        prop_assert_eq!(answers, expected);
    }
}
