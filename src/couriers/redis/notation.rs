//! Encodings: keys, the arguments of the scripts, and what they store.

use jiff::Timestamp;
use redis::{Cmd, ErrorKind, RedisError, RedisResult};

use super::super::model::{
    AddCourier, AddOrder, Assignment, Courier, CourierId, Event, OrderId, Outcome, Whereabouts,
    Zone, ZoneSummary,
};
use super::super::store::{Outgoing, Recorded};

/// Times of parked orders count from here, in microseconds.
const TIME_MIN: i128 = i64::MIN as i128;

/// The hash tag in braces selects the node of a cluster.
pub(super) fn key(name: &str) -> String {
    format!("{{odyssey:couriers:2}}:{name}")
}

/// A command on one of the desk's keys.
pub(super) fn command(name: &str, key_name: &str, arguments: &[&str]) -> Cmd {
    command_on(&key(key_name), name, arguments)
}

pub(super) fn command_on(key: &str, name: &str, arguments: &[&str]) -> Cmd {
    let mut command = redis::cmd(name);
    command.arg(key).arg(arguments);
    command
}

/// An answer that is not what was stored.
pub(super) fn invalid_answer(what: &'static str) -> RedisError {
    (ErrorKind::UnexpectedReturnType, what).into()
}

/// An event as `apply.lua` expects it: its kind, id, report, and entry of the log.
pub(super) fn arguments(event: &Event, at: Timestamp) -> RedisResult<[String; 4]> {
    let (kind, id, said) = match event {
        Event::Courier(AddCourier {
            id,
            name,
            zone,
            is_available,
        }) => {
            let said = format!("{}{}{name}", zone.as_str(), u8::from(*is_available));
            ("courier", id.to_string(), said)
        }
        Event::Order(order) => {
            // From the smallest time on, so that all have the same number of digits.
            let since_min = i128::from(order.added_at.as_microsecond()) - TIME_MIN;
            let said = format!("{}{since_min:020}", order.zone.as_str());
            ("order", order.id.to_string(), said)
        }
    };
    let json =
        serde_json::to_string(event).map_err(|_| invalid_answer("an event cannot be written"))?;
    let entry = format!("{} {json}", at.as_microsecond());
    Ok([kind.to_owned(), id, said, entry])
}

/// A parked order: zone, time and id, as sorted, and its entry.
pub(super) fn parked(member: &str) -> RedisResult<AddOrder> {
    let entry = member.get(57..).and_then(|entry| entry.split_once(' '));
    match entry.map(|(_, event)| event_of(event)) {
        Some(Ok(Event::Order(order))) => Ok(order),
        _ => Err(invalid_answer("not a parked order")),
    }
}

/// A zone as `zones.lua` describes it. Empty: none.
pub(super) fn zone(
    [
        zone,
        available,
        unavailable,
        given,
        least,
        most,
        parked,
        oldest,
    ]: &[String; 8],
) -> RedisResult<ZoneSummary> {
    let maybe = |text: &String| (!text.is_empty()).then(|| number(text)).transpose();
    let oldest = (!oldest.is_empty()).then(|| {
        let micros: Option<i128> = oldest.parse().ok();
        let micros = micros.and_then(|micros| i64::try_from(micros + TIME_MIN).ok());
        let at = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
        at.ok_or_else(|| invalid_answer("not a time"))
    });
    Ok(ZoneSummary {
        zone: Zone::parse(zone).ok_or_else(|| invalid_answer("not a zone"))?,
        available: number(available)?,
        unavailable: number(unavailable)?,
        given: number(given)?,
        least: maybe(least)?,
        most: maybe(most)?,
        parked: number(parked)?,
        oldest_parked: oldest.transpose()?,
    })
}

/// An entry of the log, `outcome time event`.
pub(super) fn recorded((id, (_, text)): &(String, (String, String))) -> RedisResult<Recorded> {
    let wrong = || invalid_answer("not an entry of the log");
    let mut parts = text.splitn(3, ' ');
    let mut part = || parts.next().ok_or_else(wrong);
    let (outcome, at, event) = (part()?, part()?, part()?);
    Ok(Recorded {
        number: number_of(id)?,
        at: time_of(at)?,
        event: event_of(event)?,
        outcome: outcome_of(outcome)?,
    })
}

/// An entry of the outbox, `order:courier`.
pub(super) fn outgoing((id, (_, text)): &(String, (String, String))) -> RedisResult<Outgoing> {
    Ok(Outgoing {
        number: number_of(id)?,
        assignment: assignment_of(text)?,
    })
}

pub(super) fn assignment_of(text: &str) -> RedisResult<Assignment> {
    let (order, courier) = text
        .split_once(':')
        .ok_or_else(|| invalid_answer("not an assignment"))?;
    Ok(Assignment {
        order_id: order_id(order)?,
        courier_id: courier_id(courier)?,
    })
}

fn number_of(stream_id: &str) -> RedisResult<u64> {
    number(stream_id.strip_prefix("0-").unwrap_or_default())
}

pub(super) fn number(text: &str) -> RedisResult<u64> {
    text.parse().map_err(|_| invalid_answer("not a number"))
}

pub(super) fn time_of(text: &str) -> RedisResult<Timestamp> {
    let micros = text.parse().ok();
    let at = micros.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    at.ok_or_else(|| invalid_answer("not a time"))
}

pub(super) fn event_of(text: &str) -> RedisResult<Event> {
    serde_json::from_str(text).map_err(|_| invalid_answer("not an event"))
}

/// The field with the count of a courier.
pub(super) fn count_field(courier: CourierId) -> String {
    format!("{courier}:count")
}

/// A courier: zone, 1 or 0 for available, name; and the count.
pub(super) fn courier(id: CourierId, said: &str, count: Option<&String>) -> RedisResult<Courier> {
    let wrong = || invalid_answer("not a courier");
    let (zone, rest) = said.split_at_checked(1).ok_or_else(wrong)?;
    let (available, name) = rest.split_at_checked(1).ok_or_else(wrong)?;
    let said = AddCourier {
        id,
        name: name.into(),
        zone: Zone::parse(zone).ok_or_else(wrong)?,
        is_available: available == "1",
    };
    let count = number(count.ok_or_else(wrong)?)?;
    Ok(Courier { said, count })
}

/// An order's courier; empty while it is parked.
pub(super) fn place_of(courier: &str) -> RedisResult<Whereabouts> {
    if courier.is_empty() {
        return Ok(Whereabouts::Parked);
    }
    Ok(Whereabouts::With(courier_id(courier)?))
}

pub(super) fn outcome_of(text: &str) -> RedisResult<Outcome> {
    let wrong = || invalid_answer("not an outcome");
    let (kind, rest) = text.split_at_checked(1).ok_or_else(wrong)?;
    Ok(match kind {
        "a" => Outcome::Assigned(courier_id(rest)?),
        "p" => Outcome::Parked,
        "u" => Outcome::Updated {
            unparked: number(rest)?,
        },
        "d" => Outcome::Duplicate(place_of(rest)?),
        _ => return Err(wrong()),
    })
}

pub(super) fn courier_id(text: &str) -> RedisResult<CourierId> {
    let id = text.parse();
    Ok(CourierId(
        id.map_err(|_| invalid_answer("not a courier's id"))?,
    ))
}

pub(super) fn order_id(text: &str) -> RedisResult<OrderId> {
    let id = text.parse();
    Ok(OrderId(
        id.map_err(|_| invalid_answer("not an order's id"))?,
    ))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn times_are_ordered_by_their_letters() {
        let said = |micros| {
            let order = Event::Order(AddOrder {
                id: OrderId(Uuid::nil()),
                details: "".into(),
                zone: Zone::N,
                added_at: Timestamp::from_microsecond(micros).unwrap(),
            });
            let [_, _, said, _] = arguments(&order, Timestamp::UNIX_EPOCH).unwrap();
            said
        };
        let placed = [
            -377_705_023_201_000_000,
            -1,
            0,
            1,
            5_429_000_000_000_000,
            253_402_207_200_000_000,
        ]
        .map(said);
        assert!(placed.is_sorted(), "{placed:#?}");
        assert!(placed.iter().all(|text| text.len() == 21));
    }
}
