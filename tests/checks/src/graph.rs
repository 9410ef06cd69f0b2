//! Strongly connected components of a directed graph (Tarjan).

use std::collections::{BTreeMap, BTreeSet};

/// The successors of each node.
pub type Graph = BTreeMap<usize, BTreeSet<usize>>;

/// Returns the components with more than one node, each sorted: the cycles of the graph.
pub fn cycles(graph: &Graph) -> Vec<Vec<usize>> {
    let mut search = Search::default();
    for &node in graph.keys() {
        if !search.index.contains_key(&node) {
            search.visit(node, graph);
        }
    }
    search.components
}

#[derive(Default)]
struct Search {
    index: BTreeMap<usize, usize>,
    lowest: BTreeMap<usize, usize>,
    stack: Vec<usize>,
    components: Vec<Vec<usize>>,
}

impl Search {
    fn visit(&mut self, node: usize, graph: &Graph) {
        let number = self.index.len();
        self.index.insert(node, number);
        self.lowest.insert(node, number);
        self.stack.push(node);
        for &next in graph.get(&node).into_iter().flatten() {
            if !self.index.contains_key(&next) {
                self.visit(next, graph);
                self.lowest.insert(node, self.lowest[&node].min(self.lowest[&next]));
            } else if self.stack.contains(&next) {
                self.lowest.insert(node, self.lowest[&node].min(self.index[&next]));
            }
        }
        if self.lowest[&node] == number {
            let at = self.stack.iter().position(|&other| other == node).expect("it is there");
            let mut component = self.stack.split_off(at);
            if component.len() > 1 {
                component.sort_unstable();
                self.components.push(component);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cycles_and_a_path_between_them() {
        let edges = [(0, 1), (1, 0), (1, 2), (2, 3), (3, 4), (4, 2), (5, 0)];
        let mut graph = Graph::new();
        for (from, to) in edges {
            graph.entry(from).or_default().insert(to);
        }
        let mut found = cycles(&graph);
        found.sort();
        assert_eq!(found, [vec![0, 1], vec![2, 3, 4]]);
    }
}
