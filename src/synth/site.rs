//! Who is there: hosts by role inside, popular and rare hosts outside.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use crate::ml::rng;
use crate::synth::dice::Dice;
use crate::table::hive::Day;

/// What a host is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Role {
    Workstation,
    Laptop,
    Web,
    Application,
    Database,
    File,
    Mail,
    Directory,
    Backup,
    Monitoring,
    Build,
    Proxy,
    Jump,
    Printer,
    Telephone,
    Camera,
    Building,
    Guest,
}

/// Role, its name, hosts at full size, network, whether their number follows the size of the day.
const ROLES: [(Role, &str, u32, [u8; 3], bool); 18] = [
    (Role::Workstation, "workstation", 1200, [10, 1, 0], true),
    (Role::Laptop, "laptop", 400, [10, 1, 32], true),
    (Role::Web, "web server", 12, [10, 2, 0], false),
    (
        Role::Application,
        "application server",
        30,
        [10, 2, 1],
        false,
    ),
    (Role::Database, "database server", 16, [10, 2, 2], false),
    (Role::File, "file server", 10, [10, 2, 3], false),
    (Role::Mail, "mail server", 4, [10, 2, 4], false),
    (
        Role::Directory,
        "directory and DNS server",
        4,
        [10, 2, 5],
        false,
    ),
    (Role::Backup, "backup server", 2, [10, 2, 6], false),
    (Role::Monitoring, "monitoring", 2, [10, 2, 7], false),
    (Role::Build, "build server", 6, [10, 2, 8], false),
    (Role::Proxy, "proxy", 2, [10, 2, 9], false),
    (Role::Jump, "jump host", 3, [10, 2, 10], false),
    (Role::Printer, "printer", 60, [10, 3, 0], true),
    (Role::Telephone, "telephone", 300, [10, 3, 8], true),
    (Role::Camera, "camera", 80, [10, 3, 16], true),
    (Role::Building, "building control", 20, [10, 3, 24], false),
    (Role::Guest, "guest", 150, [10, 9, 0], true),
];

/// Outside hosts at full size.
const OUTSIDE_HOSTS: f64 = 40_000.0;
/// Public addresses of the site.
const PUBLIC: [u8; 3] = [192, 0, 2];
/// One of so many workstations has IPv6 too.
const DUAL_STACK_OF_TEN: u64 = 3;

/// A host inside.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) role: Role,
    /// Its number among all.
    pub(super) number: u64,
    pub(super) ip: IpAddr,
    pub(super) ip6: Option<IpAddr>,
    /// Works at night too.
    pub(super) stays_on: bool,
}

/// The site of a day.
#[derive(Debug)]
pub struct Site {
    pub(super) hosts: Vec<Host>,
    pub(super) outside: u64,
    pub(super) scale: f64,
    day_number: u64,
    seed: u64,
}

impl Site {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "numbers of hosts"
    )]
    pub(super) fn new(scale: f64, seed: u64, day: Day) -> Self {
        let day_number = day.start_ms() / crate::table::hive::DAY_MS;
        let mut hosts = Vec::new();
        for (role, _, full, network, follows) in ROLES {
            let wanted = if follows {
                f64::from(full) * scale
            } else {
                f64::from(full) * scale.sqrt()
            };
            let count = (wanted.round() as u32).clamp(1, 20_000);
            for index in 0..count {
                let number = hosts.len() as u64;
                // A third of the laptops have another address each day.
                let shift = match role {
                    Role::Laptop if number.is_multiple_of(3) => {
                        (rng::bits(seed, &[1, number, day_number]) % 900) as u32
                    }
                    _ => 0,
                };
                let dual = role == Role::Workstation
                    && rng::bits(seed, &[2, number]) % 10 < DUAL_STACK_OF_TEN;
                hosts.push(Host {
                    role,
                    number,
                    ip: inside(network, index + shift),
                    ip6: dual.then(|| {
                        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, number as u16 + 1))
                    }),
                    stays_on: rng::bits(seed, &[3, number]) % 100 < 5,
                });
            }
        }
        Self {
            hosts,
            outside: (OUTSIDE_HOSTS * scale.max(0.05)) as u64,
            scale,
            day_number,
            seed,
        }
    }

    pub(super) fn of(&self, role: Role) -> Vec<&Host> {
        self.hosts.iter().filter(|host| host.role == role).collect()
    }

    /// The outside host of a rank of popularity; one of fifty is another each day.
    pub(super) fn outside_ip(&self, rank: u64, six: bool) -> IpAddr {
        let fresh = rng::bits(self.seed, &[4, rank, self.day_number]).is_multiple_of(50);
        let salt = if fresh { self.day_number } else { 0 };
        let bits = rng::bits(self.seed, &[5, rank, salt]);
        if six {
            let [a, b, c, d, ..] = bits.to_le_bytes().map(u16::from);
            return IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, b, c, d, 0, 1));
        }
        let [a, b, c, d, ..] = bits.to_le_bytes();
        // Networks of the wide world, none of ours.
        IpAddr::V4(Ipv4Addr::new(20 + a % 160, b, c, 1 + d % 250))
    }

    pub(super) fn public_ip(&self, dice: &mut Dice) -> IpAddr {
        let [a, b, c] = PUBLIC;
        IpAddr::V4(Ipv4Addr::new(
            a,
            b,
            c,
            u8::try_from(dice.below(64)).unwrap_or(0),
        ))
    }

    /// An outside address that no ordinary host of the day has by rank.
    pub(super) fn unseen_ip(&self, dice: &mut Dice) -> IpAddr {
        let [a, b, c] = [dice.below(200), dice.below(256), dice.below(250)];
        let [a, b, c] = [a, b, c].map(|part| u8::try_from(part).unwrap_or(0));
        IpAddr::V4(Ipv4Addr::new(185, a, b, 1 + c))
    }

    /// Networks and roles: what an admin would know.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = "# Networks and roles of the generated site.\nnetworks:\n".to_owned();
        for (role, name, _, [a, b, c], _) in ROLES {
            let hosts = self.of(role).len();
            // Writing to a String cannot fail.
            _ = writeln!(
                text,
                "  - {{ role: {name}, first: {a}.{b}.{c}.1, hosts: {hosts} }}"
            );
        }
        text + "  - { role: public, network: 192.0.2.0/26 }\n  - { role: inside, network: 10.0.0.0/8 }\n  - { role: inside, network: 'fd00::/8' }\n"
    }
}

/// The address of a network's host; networks have up to 65,536.
fn inside([a, b, c]: [u8; 3], index: u32) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(a, b, c, 0));
    // .0 and .255 stay free.
    IpAddr::V4(Ipv4Addr::from(base + index / 254 * 256 + index % 254 + 1))
}

/// True for addresses of the site.
pub(super) fn is_inside(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 10 || v4.octets()[..3] == PUBLIC,
        IpAddr::V6(v6) => v6.segments()[0] & 0xff00 == 0xfd00,
    }
}
