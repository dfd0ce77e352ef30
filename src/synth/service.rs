//! Ordinary traffic: services with their clients, rhythm and sizes, and the noise of the internet.

use std::net::IpAddr;

use crate::synth::SynthParams;
use crate::synth::dice::Dice;
use crate::synth::site::Host;
use crate::synth::site::Role;
use crate::synth::site::Site;
use crate::synth::traffic::Sink;
use crate::synth::traffic::Talk;
use crate::table::hive::DAY_MS;
use crate::table::hive::HOUR_MS;

/// Who serves.
#[derive(Clone, Copy, Debug)]
enum Pool {
    /// Hosts of a role; a client keeps to one of them mostly.
    Inside(Role),
    /// The whole outside by popularity, with favourites of each client.
    World,
    /// So many fixed hosts of a provider, by its number.
    Provider(u64, u64),
}

/// When sessions begin.
#[derive(Clone, Copy, Debug)]
enum Rhythm {
    /// So many a day, in working hours.
    Office(f64),
    /// So many a day, at any hour.
    Always(f64),
    /// So many in the night, 1 to 5 h.
    Night(f64),
    /// Every so many seconds, jitter in per cent: machines and benign beacons.
    Every(f64, f64),
}

struct Service {
    clients: Role,
    pool: Pool,
    protocol: u8,
    port: u16,
    rhythm: Rhythm,
    /// The most flows of a session.
    flows: u64,
    /// Median bytes up and down, sigma of both.
    size: (f64, f64, f64),
    /// Median duration, seconds.
    seconds: f64,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

macro_rules! services {
    ($($clients:ident, $pool:expr, $protocol:ident $port:literal, $rhythm:expr, $flows:literal, ($up:literal, $down:literal, $sigma:literal), $seconds:literal;)*) => {
        &[$(Service {
            clients: Role::$clients, pool: $pool, protocol: $protocol, port: $port, rhythm: $rhythm, flows: $flows,
            size: ($up as f64, $down as f64, $sigma as f64), seconds: $seconds as f64,
        }),*]
    };
}

use Pool::Inside;
use Pool::Provider;
use Pool::World;
use Rhythm::Always;
use Rhythm::Every;
use Rhythm::Night;
use Rhythm::Office;

/// Clients, servers, port, rhythm, flows a session, (bytes up, down, sigma), seconds.
const SERVICES: &[Service] = services! {
    Workstation, Inside(Role::Directory), UDP 53, Office(45.0), 4, (45, 120, 0.5), 0.02;
    Workstation, Inside(Role::Proxy), TCP 8080, Office(22.0), 8, (900, 14000, 1.6), 4;
    Workstation, World, TCP 443, Office(14.0), 8, (1400, 16000, 1.7), 8;
    Workstation, World, TCP 80, Office(3.0), 5, (500, 9000, 1.6), 3;
    Workstation, World, UDP 443, Office(4.0), 4, (2500, 40000, 1.8), 20;
    Workstation, Inside(Role::Mail), TCP 993, Every(600.0, 20.0), 1, (700, 3000, 1.2), 2;
    Workstation, Inside(Role::Mail), TCP 587, Office(4.0), 1, (9000, 900, 1.9), 3;
    Workstation, Inside(Role::Directory), TCP 88, Office(6.0), 2, (1500, 1600, 0.2), 0.05;
    Workstation, Inside(Role::Directory), TCP 389, Office(5.0), 3, (900, 2800, 0.7), 0.3;
    Workstation, Inside(Role::File), TCP 445, Office(6.0), 3, (6000, 30000, 2.0), 60;
    Workstation, Inside(Role::Application), TCP 8443, Office(8.0), 6, (1800, 9000, 1.3), 10;
    Workstation, Inside(Role::Printer), TCP 9100, Office(0.7), 1, (180000, 500, 1.3), 8;
    Workstation, Inside(Role::Directory), UDP 123, Every(1024.0, 0.5), 1, (48, 48, 0.0), 0.01;
    Workstation, Provider(1, 30), TCP 443, Every(14400.0, 10.0), 2, (1200, 90000, 1.5), 20;
    Workstation, Provider(2, 4), TCP 443, Every(3600.0, 2.0), 1, (1300, 600, 0.05), 1;
    Workstation, Provider(3, 3), TCP 443, Every(900.0, 5.0), 1, (620, 410, 0.03), 0.6;
    Workstation, Provider(4, 12), TCP 443, Office(0.6), 2, (3000000, 9000, 1.6), 90;
    Workstation, Provider(5, 20), UDP 3478, Office(0.8), 2, (9000000, 11000000, 0.9), 1500;
    Workstation, Inside(Role::Build), TCP 22, Office(0.3), 2, (20000, 60000, 1.6), 600;
    Workstation, Inside(Role::Workstation), UDP 5353, Office(1.0), 1, (120, 0, 0.4), 0.01;
    Laptop, Inside(Role::Directory), UDP 53, Office(38.0), 4, (45, 130, 0.5), 0.02;
    Laptop, World, TCP 443, Office(18.0), 8, (1500, 18000, 1.7), 8;
    Laptop, World, TCP 80, Office(2.0), 4, (500, 8000, 1.6), 3;
    Laptop, Inside(Role::Mail), TCP 993, Every(900.0, 20.0), 1, (700, 3000, 1.2), 2;
    Laptop, Provider(6, 2), UDP 4500, Office(0.4), 1, (8000000, 20000000, 1.2), 9000;
    Laptop, Provider(7, 6), TCP 443, Every(300.0, 3.0), 1, (540, 380, 0.02), 0.5;
    Guest, World, TCP 443, Office(30.0), 8, (1400, 20000, 1.8), 8;
    Guest, World, UDP 443, Office(9.0), 4, (2500, 50000, 1.8), 20;
    Guest, World, UDP 53, Office(30.0), 3, (45, 140, 0.5), 0.03;
    Guest, World, TCP 6881, Night(0.2), 20, (40000, 400000, 1.8), 120;
    Web, Inside(Role::Application), TCP 8080, Always(700.0), 3, (1500, 8000, 1.2), 1;
    Application, Inside(Role::Database), TCP 5432, Always(420.0), 3, (1100, 9000, 1.4), 2;
    Application, Inside(Role::Database), TCP 1521, Always(160.0), 2, (1300, 7000, 1.4), 3;
    Application, Inside(Role::Database), TCP 3306, Always(130.0), 2, (800, 4000, 1.4), 1;
    Application, Inside(Role::Directory), UDP 53, Always(300.0), 2, (45, 120, 0.4), 0.01;
    Application, Provider(8, 5), TCP 443, Every(60.0, 1.0), 1, (700, 520, 0.05), 0.4;
    Database, Inside(Role::Database), TCP 5433, Every(30.0, 2.0), 1, (60000, 900, 1.2), 1;
    Database, Inside(Role::Backup), TCP 10000, Night(8.0), 4, (400000000, 90000, 1.2), 1500;
    File, Inside(Role::Backup), TCP 10000, Night(8.0), 4, (600000000, 90000, 1.2), 1800;
    Mail, World, TCP 25, Always(330.0), 2, (14000, 700, 1.9), 4;
    Mail, Inside(Role::Directory), UDP 53, Always(700.0), 2, (45, 140, 0.4), 0.02;
    Monitoring, Inside(Role::Application), TCP 9100, Every(15.0, 0.5), 1, (250, 9000, 0.1), 0.2;
    Monitoring, Inside(Role::Database), TCP 9187, Every(30.0, 0.5), 1, (250, 7000, 0.1), 0.2;
    Monitoring, Inside(Role::Application), TCP 22, Every(20.0, 1.0), 1, (2100, 2600, 0.3), 1.5;
    Application, Inside(Role::Build), TCP 22, Always(130.0), 1, (2500, 9000, 0.9), 2;
    Monitoring, Inside(Role::Web), ICMP 2048, Every(20.0, 0.5), 1, (84, 84, 0.0), 0.01;
    Monitoring, Inside(Role::Building), UDP 161, Every(60.0, 0.5), 1, (80, 200, 0.2), 0.02;
    Build, World, TCP 443, Always(160.0), 6, (900, 300000, 2.0), 10;
    Build, Inside(Role::File), TCP 2049, Always(60.0), 2, (90000, 800000, 1.8), 30;
    Proxy, World, TCP 443, Always(9000.0), 1, (1200, 14000, 1.7), 6;
    Proxy, World, TCP 80, Always(2500.0), 1, (500, 9000, 1.7), 3;
    Jump, Inside(Role::Application), TCP 22, Office(14.0), 1, (30000, 90000, 1.5), 900;
    Jump, Inside(Role::Database), TCP 22, Office(4.0), 1, (20000, 60000, 1.5), 600;
    Jump, Inside(Role::Web), TCP 3389, Office(3.0), 1, (900000, 9000000, 1.2), 1800;
    Printer, Inside(Role::Directory), UDP 123, Every(3600.0, 0.5), 1, (48, 48, 0.0), 0.01;
    Printer, Provider(9, 2), TCP 443, Every(21600.0, 3.0), 1, (2200, 1500, 0.1), 2;
    Telephone, Inside(Role::Application), UDP 5060, Every(120.0, 2.0), 1, (560, 480, 0.05), 0.05;
    Telephone, Inside(Role::Telephone), UDP 16384, Office(5.0), 1, (500000, 500000, 1.2), 180;
    Camera, Inside(Role::File), TCP 554, Every(3600.0, 1.0), 1, (22000000, 200000, 0.4), 3500;
    Camera, Provider(10, 1), TCP 8883, Every(300.0, 2.0), 1, (300, 180, 0.02), 0.3;
    Building, Inside(Role::Building), UDP 47808, Every(60.0, 1.0), 1, (60, 60, 0.1), 0.01;
    Building, Inside(Role::Monitoring), TCP 1883, Every(300.0, 2.0), 1, (400, 120, 0.1), 0.2;
};

/// Noon has 1; the dip is lunch.
const OFFICE_HOURS: [f64; 24] = [
    0.02, 0.02, 0.02, 0.02, 0.02, 0.03, 0.1, 0.4, 0.85, 1.0, 1.0, 0.95, 0.6, 0.8, 1.0, 1.0, 0.9,
    0.6, 0.3, 0.15, 0.1, 0.06, 0.04, 0.03,
];
/// Share of visits that go to a favourite of the client, and how many it has.
const FAVOURITE: f64 = 0.35;
const FAVOURITES: u64 = 12;

/// Every host's services.
pub(super) fn ordinary(site: &Site, params: &SynthParams, sink: &mut Sink<'_>) {
    let day = params.day.start_ms() / DAY_MS;
    for (number, service) in (0_u64..).zip(SERVICES) {
        let servers = match service.pool {
            Inside(role) => site.of(role),
            World | Provider(..) => Vec::new(),
        };
        for host in site.of(service.clients) {
            let mut dice = Dice::new(params.seed, &[20, number, host.number, day]);
            host_service(service, host, &servers, sink, &mut dice);
        }
    }
    scanner(site, params, sink);
}

fn host_service(
    service: &Service,
    host: &Host,
    servers: &[&Host],
    sink: &mut Sink<'_>,
    dice: &mut Dice,
) {
    for start_ms in starts(&service.rhythm, host, sink.day_start_ms, dice) {
        let mut start_ms = start_ms;
        let flows = if service.flows == 1 {
            1
        } else {
            1 + dice.below(service.flows)
        };
        let Some((client, server)) = ends(service, host, servers, sink.site, dice) else {
            continue;
        };
        for _ in 0..flows {
            let talk = conversation(service, (client, server), start_ms, dice);
            sink.talk(&talk, dice);
            start_ms += milliseconds(dice.log_normal(1.5, 1.2));
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time of day"
)]
pub(super) fn milliseconds(seconds: f64) -> u64 {
    (seconds.clamp(0.0, 86_400.0) * 1000.0) as u64
}

/// Session starts of a host's day.
fn starts(rhythm: &Rhythm, host: &Host, day_ms: u64, dice: &mut Dice) -> Vec<u64> {
    let mut starts = Vec::new();
    match *rhythm {
        Every(period, jitter) => {
            let mut at = dice.between(0.0, period);
            while at < 86_400.0 {
                if is_awake(host, at) {
                    let moved = at + dice.between(-0.5, 0.5) * period * jitter / 100.0;
                    starts.push(day_ms + milliseconds(moved));
                }
                at += period;
            }
        }
        Night(count) => poisson(
            count / 4.0,
            |hour| f64::from(u8::from((1..5).contains(&hour))),
            day_ms,
            dice,
            &mut starts,
        ),
        Always(count) => poisson(count / 24.0, |_| 1.0, day_ms, dice, &mut starts),
        Office(count) => {
            let total: f64 = OFFICE_HOURS.iter().sum();
            let shape = |hour: usize| {
                if host.stays_on {
                    0.3 + OFFICE_HOURS[hour]
                } else {
                    OFFICE_HOURS[hour]
                }
            };
            poisson(count / total, shape, day_ms, dice, &mut starts);
        }
    }
    starts
}

/// People's machines sleep at night.
fn is_awake(host: &Host, second: f64) -> bool {
    let is_personal = matches!(host.role, Role::Workstation | Role::Laptop);
    !is_personal || host.stays_on || (7.0 * 3600.0..19.0 * 3600.0).contains(&second)
}

fn poisson(
    rate: f64,
    shape: impl Fn(usize) -> f64,
    day_ms: u64,
    dice: &mut Dice,
    starts: &mut Vec<u64>,
) {
    for (hour, offset) in (0..24).zip((0..).step_by(3_600_000)) {
        let hourly = rate * shape(hour);
        if hourly <= 0.0 {
            continue;
        }
        let mut at = dice.gap(hourly);
        while at < 1.0 {
            starts.push(day_ms + offset + milliseconds(at * 3600.0));
            at += dice.gap(hourly);
        }
    }
}

/// The client's and the server's address; both of one family.
fn ends(
    service: &Service,
    host: &Host,
    servers: &[&Host],
    site: &Site,
    dice: &mut Dice,
) -> Option<(IpAddr, IpAddr)> {
    match service.pool {
        Inside(_) => {
            let own =
                Dice::new(host.number, &[21, u64::from(service.port)]).below(servers.len() as u64);
            let other = dice.below(servers.len() as u64);
            let index = if dice.chance(0.8) { own } else { other };
            let server = servers.get(usize::try_from(index).ok()?)?;
            (server.ip != host.ip).then_some((host.ip, server.ip))
        }
        Provider(provider, hosts) => {
            let rank = 1_000_000 + provider * 1000 + dice.below(hosts);
            Some((host.ip, site.outside_ip(rank, false)))
        }
        World => {
            let rank = if dice.chance(FAVOURITE) {
                let favourite = dice.below(FAVOURITES);
                Dice::new(host.number, &[22, favourite]).zipf(site.outside)
            } else {
                dice.zipf(site.outside)
            };
            let six = host.ip6.filter(|_| rank.is_multiple_of(3));
            Some((six.unwrap_or(host.ip), site.outside_ip(rank, six.is_some())))
        }
    }
}

pub(super) fn ephemeral_port(dice: &mut Dice) -> u16 {
    u16::try_from(if dice.chance(0.5) {
        49_152 + dice.below(16_384)
    } else {
        32_768 + dice.below(28_232)
    })
    .unwrap_or(50_000)
}

fn conversation(
    service: &Service,
    (client, server): (IpAddr, IpAddr),
    start_ms: u64,
    dice: &mut Dice,
) -> Talk {
    let (up, down, sigma) = service.size;
    let fails = service.protocol == TCP && dice.chance(0.03);
    let size = dice.log_normal(1.0, sigma);
    Talk {
        start_ms,
        duration_ms: if fails {
            3000
        } else {
            milliseconds(dice.log_normal(service.seconds, 0.8).min(30_000.0))
        },
        client,
        server,
        client_port: if service.protocol == ICMP {
            0
        } else {
            ephemeral_port(dice)
        },
        server_port: service.port,
        protocol: service.protocol,
        bytes_up: if fails { 0.0 } else { up * size },
        bytes_down: if fails {
            0.0
        } else {
            down * size * dice.log_normal(1.0, sigma / 3.0)
        },
        packet_bytes: if service.port == 16_384 {
            200.0
        } else {
            1200.0
        },
        attack: None,
    }
}

/// The house's own vulnerability scanner: a benign scan of all servers by a monitoring host, 20 to 22 h.
fn scanner(site: &Site, params: &SynthParams, sink: &mut Sink<'_>) {
    let Some(scanner) = site.of(Role::Monitoring).first().copied() else {
        return;
    };
    let mut dice = Dice::new(params.seed, &[23, params.day.start_ms()]);
    for target in site
        .hosts
        .iter()
        .filter(|host| matches!(host.role, Role::Web | Role::Application | Role::Database))
    {
        for port in [
            21, 22, 23, 25, 80, 110, 139, 443, 445, 1433, 3306, 3389, 5432, 5900, 8080, 8443,
        ] {
            let start_ms = sink.day_start_ms + 20 * HOUR_MS + dice.below(2 * HOUR_MS);
            let talk = probe((scanner.ip, target.ip), port, start_ms, None, &mut dice);
            sink.talk(&talk, &mut dice);
        }
    }
}

/// A connection try: answered by a reset now and then.
pub(super) fn probe(
    (client, server): (IpAddr, IpAddr),
    port: u16,
    start_ms: u64,
    attack: Option<u16>,
    dice: &mut Dice,
) -> Talk {
    let answered = dice.chance(0.3);
    Talk {
        start_ms,
        duration_ms: dice.below(900),
        client,
        server,
        client_port: ephemeral_port(dice),
        server_port: port,
        protocol: TCP,
        bytes_up: 0.0,
        bytes_down: if answered { 1.0 } else { 0.0 },
        packet_bytes: 1200.0,
        attack,
    }
}

/// Ports that the internet knocks at, most wanted first.
const NOISE_PORTS: [u16; 24] = [
    23, 445, 22, 80, 443, 3389, 8080, 1433, 5060, 2323, 81, 5555, 8443, 21, 25, 6379, 3306, 5900,
    8888, 7547, 9200, 27017, 11211, 389,
];
/// Records of noise at full size: 8 %.
const NOISE_RECORDS: f64 = 90_000.0;

/// Scans and backscatter from outside on the public addresses.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of records"
)]
pub(super) fn noise(site: &Site, params: &SynthParams, sink: &mut Sink<'_>) {
    let mut dice = Dice::new(params.seed, &[24, params.day.start_ms()]);
    let mut left = (NOISE_RECORDS * site.scale) as u64;
    while left > 0 {
        let source = site.unseen_ip(&mut dice);
        let tries = (1 + dice.zipf(200)).min(left);
        let known = usize::try_from(dice.zipf(NOISE_PORTS.len() as u64 * 3))
            .ok()
            .and_then(|rank| NOISE_PORTS.get(rank));
        let port = known
            .copied()
            .unwrap_or_else(|| u16::try_from(1024 + dice.below(60_000)).unwrap_or(1024));
        let mut start_ms = sink.day_start_ms + dice.below(DAY_MS);
        for _ in 0..tries {
            let target = site.public_ip(&mut dice);
            let mut talk = probe((source, target), port, start_ms, None, &mut dice);
            talk.bytes_down = 0.0;
            sink.talk(&talk, &mut dice);
            start_ms += dice.below(60_000);
        }
        left -= tries;
    }
}
