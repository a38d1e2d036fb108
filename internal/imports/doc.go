// Package imports holds no code but tests of what imports what: the directions
// between the packages of this module, and the packages of others that end
// up in the daemon. Both fail on anything new, so that each new arrow and each new
// dependency is a decision.
package imports
