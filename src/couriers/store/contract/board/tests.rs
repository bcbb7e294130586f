use uuid::Uuid;

use super::*;

fn said(number: u128, zone: Zone, is_available: bool) -> AddCourier {
    AddCourier {
        id: CourierId(Uuid::from_u128(number)),
        name: "somebody".into(),
        zone,
        is_available,
    }
}

fn placed(number: u128, zone: Zone) -> Event {
    Event::Order(AddOrder {
        id: OrderId(Uuid::from_u128(number)),
        details: "".into(),
        zone,
        added_at: Timestamp::UNIX_EPOCH,
    })
}

#[test]
fn a_newcomer_begins_with_none_or_takes_turns_at_once() {
    for (join, first) in [(Join::Zero, 2), (Join::Min, 1)] {
        let mut board = Board::new(join);
        board.apply(&Event::Courier(said(1, Zone::N, true)));
        for number in 0..3 {
            board.apply(&placed(number, Zone::N));
        }
        board.apply(&Event::Courier(said(2, Zone::N, true)));
        let (outcome, _) = board.apply(&placed(9, Zone::N));
        assert_eq!(
            outcome,
            Outcome::Assigned(CourierId(Uuid::from_u128(first))),
            "{join:?}"
        );
    }
}

#[test]
fn of_those_with_as_many_the_smallest_id_is_next() {
    let mut board = Board::new(Join::Zero);
    for number in [3, 1, 2] {
        board.apply(&Event::Courier(said(number, Zone::E, true)));
    }
    let next = |board: &mut Board, order| board.apply(&placed(order, Zone::E)).0;
    for order in 0..6 {
        let turn = CourierId(Uuid::from_u128(order % 3 + 1));
        assert_eq!(next(&mut board, order), Outcome::Assigned(turn));
    }
}
