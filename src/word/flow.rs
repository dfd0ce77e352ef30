//! Flow words: two for each record, one for the document of each end (Spot's `FlowWordCreator`).
//!
//! ```text
//! [-1_]<port>_<protocol>_<hour>_<byte bin>_<packet bin>          301_TCP_3_11_4 and -1_301_TCP_3_11_4
//! ```
//! `<port>` is the service port if one end has one (at most 1024, or the only one that is not 0), 111111 if both have, 333333
//! if neither has, 0 without ports. `-1_` marks the end that owns the service port.

use std::fmt;

use crate::wire::protocol;
use crate::word::Compat;
use crate::word::bins;

/// The highest port that counts as a service port.
const SERVICE_PORT_MAX: u16 = 1024;
/// Code of "both ends have a service port", printed 111111.
const BOTH: u32 = 1 << 16;
/// Code of "neither end has one", printed 333333.
const NEITHER: u32 = (1 << 16) + 1;
const NULL_PROTOCOL: u16 = 256;
const ICMP: u16 = 1;
const ICMP6: u16 = 58;

/// What a flow's words are made of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FlowFields {
    /// Hour of the event, 0–31 (valid records have 0–23).
    pub hour: u8,
    /// Source port.
    pub src_port: u16,
    /// Destination port; type · 256 + code for ICMP.
    pub dst_port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Bytes, not negative.
    pub bytes: i64,
    /// Packets, not negative.
    pub packets: i64,
}

/// A protocol as a word knows it: by its name, so that 6 and 87, which nfdump both calls TCP, are the same.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Protocol(u16);

impl Protocol {
    /// The protocol of a row whose `proto` column is null.
    pub const NULL: Self = Self(NULL_PROTOCOL);

    /// Returns the protocol with this number.
    #[must_use]
    pub fn of_number(number: u8) -> Self {
        let same_name = protocol::name(number).and_then(Self::of_name);
        same_name.unwrap_or(Self(u16::from(number)))
    }

    /// Returns the protocol of a `proto` column; `None` for a text that is neither a name nor a number without name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let named = (0..=u8::MAX).find(|&number| match protocol::name(number) {
            Some(known) => known == name,
            None => name.parse() == Ok(number),
        });
        named.map(|number| Self(u16::from(number)))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u8::try_from(self.0) {
            Err(_) => f.write_str("null"),
            Ok(number) => match protocol::name(number) {
                Some(name) => f.write_str(name),
                None => write!(f, "{number}"),
            },
        }
    }
}

/// A packed flow word. Bits from the lowest: packet bin 7, byte bin 7, hour 5, protocol 9, port code 17, server mark 1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowWord(u64);

impl FlowWord {
    /// Returns the word of these bits, as [`FlowWord::bits`] gave them.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the packed form: equal words have equal bits.
    #[must_use]
    pub fn bits(self) -> u64 {
        self.0
    }

    fn pack(port: u32, server: bool, tail: u64) -> Self {
        Self(u64::from(server) << 45 | u64::from(port) << 28 | tail)
    }

    /// Takes `width` bits from `low` on.
    fn field(self, low: u32, width: u32) -> u64 {
        (self.0 >> low) & ((1 << width) - 1)
    }

    /// True at the end that owns the service port.
    #[must_use]
    pub fn is_server(self) -> bool {
        self.field(45, 1) == 1
    }

    /// Returns the hour.
    #[must_use]
    pub fn hour(self) -> u64 {
        self.field(14, 5)
    }

    /// Returns the byte bin.
    #[must_use]
    pub fn byte_bin(self) -> u64 {
        self.field(7, 7)
    }

    /// Returns the packet bin.
    #[must_use]
    pub fn packet_bin(self) -> u64 {
        self.field(0, 7)
    }

    /// Returns the protocol.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        Protocol(u16::try_from(self.field(19, 9)).unwrap_or(NULL_PROTOCOL))
    }

    /// Returns the port key as Spot prints it: a port, 111111 or 333333.
    #[must_use]
    pub fn port_key(self) -> u64 {
        match self.field(28, 17) {
            code if code == u64::from(BOTH) => 111_111,
            code if code == u64::from(NEITHER) => 333_333,
            port => port,
        }
    }
}

/// A part of a flow word.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Feature {
    /// Port and which end owns it.
    Port,
    /// Protocol.
    Protocol,
    /// Hour.
    Hour,
    /// Byte bin.
    Bytes,
    /// Packet bin.
    Packets,
}

impl Feature {
    /// All, in the order of the word.
    pub const ALL: [Self; 5] = [
        Self::Port,
        Self::Protocol,
        Self::Hour,
        Self::Bytes,
        Self::Packets,
    ];

    /// Returns its name as people say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Protocol => "protocol",
            Self::Hour => "hour",
            Self::Bytes => "number of bytes",
            Self::Packets => "number of packets",
        }
    }

    /// Returns the bits of a word without this feature: equal for words that differ in it only.
    #[must_use]
    pub fn mask(self, word: FlowWord) -> u64 {
        let (low, width) = match self {
            Self::Packets => (0, 7),
            Self::Bytes => (7, 7),
            Self::Hour => (14, 5),
            Self::Protocol => (19, 9),
            Self::Port => (28, 18),
        };
        word.0 & !(((1 << width) - 1) << low)
    }
}

impl FlowWord {
    /// Returns the word as people say it: `to port 443/TCP at 14 h, 2048 to 4095 bytes in 8 to 15 packets`.
    #[must_use]
    pub fn plain(self) -> String {
        let protocol = self.protocol();
        let port = match (self.field(28, 17), self.is_server()) {
            (0, _) => format!("{protocol}"),
            (code, _) if code == u64::from(BOTH) => format!("between service ports/{protocol}"),
            (code, _) if code == u64::from(NEITHER) => format!("between high ports/{protocol}"),
            (code, _) if matches!(protocol.0, ICMP | ICMP6) => {
                format!("{protocol} type {} code {}", code / 256, code % 256)
            }
            (port, true) => format!("serving port {port}/{protocol}"),
            (port, false) => format!("to port {port}/{protocol}"),
        };
        let range = |bin: u64| match bin {
            0 => "0".to_owned(),
            1 => "1".to_owned(),
            bin => {
                let low = 1_u64
                    .checked_shl(u32::try_from(bin - 1).unwrap_or(63))
                    .unwrap_or(u64::MAX);
                format!("{low} to {}", low.saturating_mul(2).saturating_sub(1))
            }
        };
        let (bytes, packets) = (range(self.byte_bin()), range(self.packet_bin()));
        format!(
            "{port} at {} h, {bytes} bytes in {packets} packets",
            self.hour()
        )
    }
}

impl fmt::Display for FlowWord {
    /// Spot's text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_server() { "-1_" } else { "" };
        let (port, protocol, hour) = (self.port_key(), self.protocol(), self.hour());
        let (bytes, packets) = (self.byte_bin(), self.packet_bin());
        write!(f, "{mark}{port}_{protocol}_{hour}_{bytes}_{packets}")
    }
}

/// Returns the words of a flow: that of the source's document, and that of the destination's.
#[must_use]
pub fn words(fields: &FlowFields, compat: Compat) -> [FlowWord; 2] {
    let tail = tail(fields, compat);
    let word = |port: u32, server| FlowWord::pack(port, server, tail);
    let same = |port| [word(port, false), word(port, false)];
    let source_serves = [
        word(u32::from(fields.src_port), true),
        word(u32::from(fields.src_port), false),
    ];
    let destination_serves = [
        word(u32::from(fields.dst_port), false),
        word(u32::from(fields.dst_port), true),
    ];
    let is_service = |port| port <= SERVICE_PORT_MAX;
    match (fields.src_port, fields.dst_port) {
        (0, 0) => same(0),
        (_, 0) => source_serves,
        (0, _) => destination_serves,
        (src, dst) => match (is_service(src), is_service(dst)) {
            (true, true) => same(BOTH),
            (true, false) => source_serves,
            (false, true) => destination_serves,
            (false, false) => same(NEITHER),
        },
    }
}

fn tail(fields: &FlowFields, compat: Compat) -> u64 {
    let bytes = bins::ceil_log2_plus_one(fields.bytes, compat);
    let packets = bins::ceil_log2_plus_one(fields.packets, compat);
    let hour = u64::from(fields.hour & 31);
    u64::from(fields.protocol.0) << 19 | hour << 14 | u64::from(bytes) << 7 | u64::from(packets)
}
