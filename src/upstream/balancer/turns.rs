//! The servers of a pool, each as often as its weight says; one with weight 0 has no turn.

/// Indices of servers, spread evenly, and their weights.
pub struct WeightedTurns {
    turns: Vec<u32>,
    weights: Vec<u64>,
}

impl WeightedTurns {
    pub fn new(weights: &[usize]) -> Self {
        let common = weights.iter().copied().reduce(greatest_common_divisor).unwrap_or(1).max(1);
        let reduced: Vec<usize> = weights.iter().map(|weight| weight / common).collect();
        Self { turns: spread(&reduced), weights: reduced.iter().map(|weight| *weight as u64).collect() }
    }

    pub fn weight(&self, server: usize) -> u64 {
        self.weights[server]
    }

    /// Returns the server of a turn; `None` when the pool has no server.
    pub fn at(&self, turn: usize) -> Option<usize> {
        (!self.turns.is_empty()).then(|| self.turns[turn % self.turns.len()] as usize)
    }

    /// Draws servers, `most` times, until one is admitted.
    pub fn draw(&self, most: usize, turn: impl Fn(usize) -> usize, admits: impl Fn(usize) -> bool) -> Option<usize> {
        (0..most).map_while(|draw| self.at(turn(draw))).find(|server| admits(*server))
    }

    /// Looks at all servers and returns one that is admitted, by weight.
    pub fn among(&self, turn: usize, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let admitted = || self.weights.iter().enumerate().filter(|(server, weight)| **weight > 0 && admits(*server));
        let total: u64 = admitted().map(|(_, weight)| weight).sum();
        let mut left = (turn as u64).checked_rem(total)?;
        for (server, weight) in admitted() {
            if left < *weight {
                return Some(server);
            }
            left -= weight;
        }
        // What is admitted may have changed since it was counted.
        admitted().next().map(|(server, _)| server)
    }

    /// Returns the first server after this one that is admitted.
    pub fn next_to(&self, server: usize, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let count = self.weights.len();
        (1..count).map(|step| (server + step) % count).find(|server| self.weights[*server] > 0 && admits(*server))
    }
}

fn greatest_common_divisor(one: usize, other: usize) -> usize {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

/// Returns the order of smooth weighted round robin, worked out in advance: weights 3 and 1 give 0 0 1 0, never 0 0 0 1.
fn spread(weights: &[usize]) -> Vec<u32> {
    let total: usize = weights.iter().sum();
    let mut credit = vec![0_isize; weights.len()];
    let mut turns = Vec::with_capacity(total);
    for _ in 0..total {
        for (credit, weight) in credit.iter_mut().zip(weights) {
            *credit += *weight as isize;
        }
        let Some(richest) = (0..credit.len()).rev().max_by_key(|server| credit[*server]) else { break };
        credit[richest] -= total as isize;
        turns.push(richest as u32);
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_by_weight_and_not_in_bursts() {
        assert_eq!(spread(&[3, 1]), [0, 0, 1, 0]);
        assert_eq!(spread(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(spread(&[]), [0; 0]);
        assert_eq!(WeightedTurns::new(&[200, 100, 100]).turns, [0, 1, 2, 0], "no longer than the weights need");
    }

    #[test]
    fn among_all_servers_each_has_as_many_turns_as_it_has_weight() {
        let turns = WeightedTurns::new(&[1, 2, 3]);
        let of = |server: usize, admits: &dyn Fn(usize) -> bool| {
            (0..600).filter(|turn| turns.among(*turn, admits) == Some(server)).count()
        };
        assert_eq!([0, 1, 2].map(|server| of(server, &|_| true)), [100, 200, 300]);
        assert_eq!([0, 1, 2].map(|server| of(server, &|server| server != 1)), [150, 0, 450]);
        assert_eq!(turns.among(7, |_| false), None);
        let without = WeightedTurns::new(&[0, 1]);
        assert_eq!((without.among(7, |_| true), without.at(7), without.next_to(1, |_| true)), (Some(1), Some(1), None));
        assert_eq!(WeightedTurns::new(&[]).among(7, |_| true), None);
        assert_eq!(WeightedTurns::new(&[]).at(7), None);
    }

    #[test]
    fn the_next_server_is_found_round_the_end() {
        let turns = WeightedTurns::new(&[1, 1, 1]);
        assert_eq!(turns.next_to(2, |_| true), Some(0));
        assert_eq!(turns.next_to(2, |server| server == 1), Some(1));
        assert_eq!(turns.next_to(2, |server| server == 2), None, "a server is not next to itself");
    }
}
