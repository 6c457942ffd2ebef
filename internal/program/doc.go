// Package program starts other programs beside the servers of a pgtest.Farm, a node of the router among them: its binary is built, given
// a configuration file, and started as an operator would.
//
// Like every internal package it knows nothing of Rangefinder but what an operator sees: flags, the configuration and /readyz. It is
// for what looks at a node from outside. Tests of a package start what they need in process.
package program
