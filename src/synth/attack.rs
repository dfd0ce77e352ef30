//! Hidden attacks: each an instance with a number, its hosts, times and technique.

use std::net::IpAddr;

use serde::Serialize;

use crate::synth::SynthParams;
use crate::synth::dice::Dice;
use crate::synth::service::ephemeral_port;
use crate::synth::service::milliseconds;
use crate::synth::service::probe;
use crate::synth::site::Host;
use crate::synth::site::Role;
use crate::synth::site::Site;
use crate::synth::traffic::Sink;
use crate::synth::traffic::Talk;
use crate::table::hive::HOUR_MS;

/// One hidden attack.
#[derive(Clone, Debug, Serialize)]
pub struct Attack {
    /// Its number.
    pub id: u16,
    /// What it is.
    pub kind: &'static str,
    /// ATT&CK technique.
    pub technique: &'static str,
    /// The attacking or infected host first.
    pub hosts: Vec<IpAddr>,
    /// First and last start of a conversation, milliseconds since 1970.
    pub first_ms: u64,
    /// See `first_ms`.
    pub last_ms: u64,
    /// Records.
    pub records: usize,
}

struct Hider<'a, 'b> {
    site: &'a Site,
    sink: &'a mut Sink<'b>,
    dice: Dice,
    attacks: Vec<Attack>,
}

/// Adds every kind of attack; none disappears in a small day.
pub(super) fn hide(site: &Site, params: &SynthParams, sink: &mut Sink<'_>) -> Vec<Attack> {
    let dice = Dice::new(params.seed, &[30, params.day.start_ms()]);
    let mut hider = Hider {
        site,
        sink,
        dice,
        attacks: Vec::new(),
    };
    hider.beacons();
    hider.scans();
    hider.movement();
    hider.exfiltration();
    hider.side_channels();
    hider.intrusion();
    hider.strange_services();
    let mut attacks = hider.attacks;
    for attack in &mut attacks {
        let own = sink
            .records
            .iter()
            .filter(|labelled| labelled.attack == Some(attack.id));
        let starts = own.clone().map(|labelled| labelled.record.first_ms);
        attack.first_ms = starts.clone().min().unwrap_or(0);
        attack.last_ms = starts.max().unwrap_or(0);
        attack.records = own.count();
    }
    attacks
}

/// One conversation of an attack.
struct Step {
    ends: (IpAddr, IpAddr),
    at_ms: u64,
    protocol: u8,
    port: u16,
    bytes: (f64, f64),
    seconds: f64,
}

impl Hider<'_, '_> {
    fn new_attack(
        &mut self,
        kind: &'static str,
        technique: &'static str,
        hosts: Vec<IpAddr>,
    ) -> u16 {
        let id = u16::try_from(self.attacks.len()).unwrap_or(u16::MAX);
        self.attacks.push(Attack {
            id,
            kind,
            technique,
            hosts,
            first_ms: 0,
            last_ms: 0,
            records: 0,
        });
        id
    }

    fn any(&mut self, role: Role) -> Host {
        let hosts = self.site.of(role);
        let index = usize::try_from(self.dice.below(hosts.len() as u64)).unwrap_or(0);
        hosts[index].clone()
    }

    fn hour(&mut self, low: f64, high: f64) -> u64 {
        self.sink.day_start_ms + milliseconds(self.dice.between(low, high) * 3600.0)
    }

    fn talk(&mut self, step: &Step, attack: u16) {
        let talk = Talk {
            start_ms: step.at_ms,
            duration_ms: milliseconds(step.seconds),
            client: step.ends.0,
            server: step.ends.1,
            client_port: if step.protocol == 1 {
                0
            } else {
                ephemeral_port(&mut self.dice)
            },
            server_port: step.port,
            protocol: step.protocol,
            bytes_up: step.bytes.0,
            bytes_down: step.bytes.1,
            packet_bytes: 1200.0,
            attack: Some(attack),
        };
        self.sink.talk(&talk, &mut self.dice);
    }

    /// Period, jitter in per cent, port, spread of sizes, hours.
    fn beacons(&mut self) {
        let beacons = [
            (60.0, 0.0, 443, 0.0, (0.0, 24.0)),
            (300.0, 20.0, 443, 0.3, (0.0, 24.0)),
            (3600.0, 50.0, 443, 0.3, (0.0, 24.0)),
            (300.0, 20.0, 8531, 0.0, (8.0, 17.0)),
        ];
        for (period, jitter, port, spread, (from, to)) in beacons {
            let role = if to < 24.0 {
                Role::Laptop
            } else {
                Role::Workstation
            };
            let host = self.any(role);
            let target = self.site.unseen_ip(&mut self.dice);
            let attack = self.new_attack(
                "beacon",
                if port == 443 { "T1071" } else { "T1571" },
                vec![host.ip, target],
            );
            let mut at = from * 3600.0 + self.dice.between(0.0, period);
            while at < to * 3600.0 {
                let moved = at + self.dice.between(-0.5, 0.5) * period * jitter / 100.0;
                let size = self.dice.log_normal(1.0, spread);
                let step = Step {
                    ends: (host.ip, target),
                    at_ms: self.sink.day_start_ms + milliseconds(moved),
                    protocol: 6,
                    port,
                    bytes: (640.0 * size, 430.0 * size),
                    seconds: 0.7,
                };
                self.talk(&step, attack);
                at += period;
            }
        }
    }

    fn scans(&mut self) {
        let (host, target) = (self.any(Role::Workstation), self.any(Role::Application));
        let attack = self.new_attack("vertical scan", "T1046", vec![host.ip, target.ip]);
        let start = self.hour(9.0, 15.0);
        for port in 1..=1000 {
            let at_ms = start + u64::from(port) * 400;
            let talk = probe(
                (host.ip, target.ip),
                port,
                at_ms,
                Some(attack),
                &mut self.dice,
            );
            self.sink.talk(&talk, &mut self.dice);
        }
        let host = self.any(Role::Workstation);
        let attack = self.new_attack("horizontal scan", "T1018", vec![host.ip]);
        let start = self.hour(9.0, 15.0);
        let targets: Vec<IpAddr> = self
            .site
            .of(Role::Workstation)
            .iter()
            .take(254)
            .map(|host| host.ip)
            .collect();
        for (index, target) in (0..).zip(targets) {
            let talk = probe(
                (host.ip, target),
                445,
                start + index * 900,
                Some(attack),
                &mut self.dice,
            );
            self.sink.talk(&talk, &mut self.dice);
        }
        let host = self.any(Role::Laptop);
        let attack = self.new_attack("slow scan", "T1046", vec![host.ip]);
        let targets: Vec<IpAddr> = self
            .site
            .of(Role::Database)
            .iter()
            .map(|host| host.ip)
            .collect();
        for minute in 0..1440 {
            let index = usize::try_from(self.dice.below(targets.len() as u64)).unwrap_or(0);
            let port = [1433, 3306, 5432, 1521, 27_017, 6379][minute % 6];
            let at_ms = self.sink.day_start_ms + minute as u64 * 60_000 + self.dice.below(20_000);
            let talk = probe(
                (host.ip, targets[index]),
                port,
                at_ms,
                Some(attack),
                &mut self.dice,
            );
            self.sink.talk(&talk, &mut self.dice);
        }
    }

    /// A chain of four hosts over six hours.
    fn movement(&mut self) {
        let chain = [
            Role::Workstation,
            Role::Workstation,
            Role::File,
            Role::Database,
        ]
        .map(|role| self.any(role).ip);
        let attack = self.new_attack("lateral movement", "T1021", chain.to_vec());
        let start = self.hour(10.0, 12.0);
        for (index, (pair, port)) in (0..).zip(chain.windows(2).zip([3389, 445, 5985])) {
            for part in 0..20 {
                let size = self.dice.between(3e6, 20e6) / 20.0;
                let step = Step {
                    ends: (pair[0], pair[1]),
                    at_ms: start + index * 2 * HOUR_MS + part * 150_000,
                    protocol: 6,
                    port,
                    bytes: (size, size / 8.0),
                    seconds: 60.0,
                };
                self.talk(&step, attack);
            }
        }
    }

    /// Bytes, times, seconds of each, first hour.
    fn exfiltration(&mut self) {
        let kinds = [
            ("exfiltration at once", 2e9, 1, 1500.0, 13.0),
            ("exfiltration by hours", 40e6, 8, 240.0, 9.0),
            ("exfiltration at night", 300e6, 3, 600.0, 2.0),
        ];
        for (kind, bytes, times, seconds, hour) in kinds {
            let host = self.any(Role::Workstation);
            let target = self.site.unseen_ip(&mut self.dice);
            let attack = self.new_attack(
                kind,
                if times == 1 { "T1048" } else { "T1041" },
                vec![host.ip, target],
            );
            for index in 0..times {
                let step = Step {
                    ends: (host.ip, target),
                    at_ms: self.hour(hour, hour + 0.3) + index * HOUR_MS,
                    protocol: 6,
                    port: 443,
                    bytes: (bytes, bytes / 150.0),
                    seconds,
                };
                self.talk(&step, attack);
            }
        }
    }

    fn side_channels(&mut self) {
        let host = self.any(Role::Workstation);
        let target = self.site.unseen_ip(&mut self.dice);
        let attack = self.new_attack("ICMP channel", "T1095", vec![host.ip, target]);
        let start = self.hour(10.0, 16.0);
        for index in 0..360 {
            let at_ms = start + index * 10_000;
            let step = Step {
                ends: (host.ip, target),
                at_ms,
                protocol: 1,
                port: 2048,
                bytes: (1000.0, 1000.0),
                seconds: 0.1,
            };
            self.talk(&step, attack);
        }
        let host = self.any(Role::Laptop);
        let target = self.site.unseen_ip(&mut self.dice);
        let attack = self.new_attack("DNS tunnel", "T1071.004", vec![host.ip, target]);
        let start = self.hour(9.0, 14.0);
        for index in 0..1500 {
            let size = self.dice.log_normal(180.0, 0.2);
            let at_ms = start + index * 2000 + self.dice.below(1500);
            let step = Step {
                ends: (host.ip, target),
                at_ms,
                protocol: 17,
                port: 53,
                bytes: (size, size * 1.6),
                seconds: 0.1,
            };
            self.talk(&step, attack);
        }
    }

    fn intrusion(&mut self) {
        let (host, target) = (self.any(Role::Workstation), self.any(Role::Jump));
        let attack = self.new_attack("brute force", "T1110", vec![host.ip, target.ip]);
        let start = self.hour(11.0, 15.0);
        for index in 0..5000 {
            let size = self.dice.log_normal(1800.0, 0.1);
            let at_ms = start + index * 1440;
            let step = Step {
                ends: (host.ip, target.ip),
                at_ms,
                protocol: 6,
                port: 22,
                bytes: (size, size * 1.2),
                seconds: 1.2,
            };
            self.talk(&step, attack);
        }
        let (host, target) = (self.any(Role::Workstation), self.any(Role::Database));
        let attack = self.new_attack("insider", "T1213", vec![host.ip, target.ip]);
        for index in 0..12 {
            let at_ms = self.hour(3.0, 3.2) + index * 120_000;
            let step = Step {
                ends: (host.ip, target.ip),
                at_ms,
                protocol: 6,
                port: 5432,
                bytes: (40e3, 60e6),
                seconds: 90.0,
            };
            self.talk(&step, attack);
        }
    }

    fn strange_services(&mut self) {
        let host = self.any(Role::Workstation);
        let target = self.site.unseen_ip(&mut self.dice);
        let attack = self.new_attack("wrong protocol on port", "T1571", vec![host.ip, target]);
        for index in 0..4 {
            let at_ms = self.hour(9.0, 9.5) + index * 2 * HOUR_MS;
            let step = Step {
                ends: (host.ip, target),
                at_ms,
                protocol: 6,
                port: 443,
                bytes: (90e3, 300e3),
                seconds: 5400.0,
            };
            self.talk(&step, attack);
        }
        let zone = self.any(Role::Workstation);
        let visitors: Vec<IpAddr> = (0..5)
            .map(|_| self.any(Role::Workstation).ip)
            .filter(|&ip| ip != zone.ip)
            .collect();
        let hosts = std::iter::once(zone.ip)
            .chain(visitors.iter().copied())
            .collect();
        let attack = self.new_attack("drop zone", "T1105", hosts);
        for visitor in visitors {
            for _ in 0..3 {
                let at_ms = self.hour(9.0, 17.0);
                let step = Step {
                    ends: (visitor, zone.ip),
                    at_ms,
                    protocol: 6,
                    port: 8081,
                    bytes: (700.0, 900e3),
                    seconds: 6.0,
                };
                self.talk(&step, attack);
            }
        }
    }
}
