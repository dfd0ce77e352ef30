//! Which rows of the `flow` table are analysed (Spot's `FlowSuspiciousConnectsAnalysis` filters).

/// The columns that decide, with SQL's nulls. Numbers are as wide as any table may have them.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowRow {
    /// `trhour`.
    pub hour: Option<i64>,
    /// `trminute`.
    pub minute: Option<i64>,
    /// `trsec`.
    pub second: Option<i64>,
    /// `treceived` is not null.
    pub has_received: bool,
    /// `sip` is not null.
    pub has_src_ip: bool,
    /// `dip` is not null.
    pub has_dst_ip: bool,
    /// `sport`.
    pub src_port: Option<i64>,
    /// `dport`.
    pub dst_port: Option<i64>,
    /// `ibyt`.
    pub bytes: Option<i64>,
    /// `ipkt`.
    pub packets: Option<i64>,
}

/// Why a row is not analysed: the first column, in this order, that is null or out of range.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum Invalid {
    /// Not 0–23.
    #[error("trhour is null or not 0 to 23")]
    Hour,
    /// Not 0–59.
    #[error("trminute is null or not 0 to 59")]
    Minute,
    /// Not 0–59.
    #[error("trsec is null or not 0 to 59")]
    Second,
    /// Null.
    #[error("treceived is null")]
    Received,
    /// Null.
    #[error("sip is null")]
    SrcIp,
    /// Null.
    #[error("dip is null")]
    DstIp,
    /// Null or negative.
    #[error("sport is null or negative")]
    SrcPort,
    /// Null or negative.
    #[error("dport is null or negative")]
    DstPort,
    /// Null or negative.
    #[error("ibyt is null or negative")]
    Bytes,
    /// Null or negative.
    #[error("ipkt is null or negative")]
    Packets,
}

/// Checks a row. Every row is valid or has one reason: Spot's two filters leave a row that is only out of range in time in
/// neither set.
///
/// # Errors
/// The first reason why the row is not analysed.
pub fn check(row: &FlowRow) -> Result<(), Invalid> {
    let within = |value: Option<i64>, most| value.is_some_and(|value| (0..=most).contains(&value));
    let checks = [
        (within(row.hour, 23), Invalid::Hour),
        (within(row.minute, 59), Invalid::Minute),
        (within(row.second, 59), Invalid::Second),
        (row.has_received, Invalid::Received),
        (row.has_src_ip, Invalid::SrcIp),
        (row.has_dst_ip, Invalid::DstIp),
        (within(row.src_port, i64::MAX), Invalid::SrcPort),
        (within(row.dst_port, i64::MAX), Invalid::DstPort),
        (within(row.bytes, i64::MAX), Invalid::Bytes),
        (within(row.packets, i64::MAX), Invalid::Packets),
    ];
    let failed = checks.into_iter().find(|(holds, _)| !holds);
    failed.map_or(Ok(()), |(_, reason)| Err(reason))
}
