"""Puzzles of known difficulty, made on the fly: sudoku, mazes, enclosed regions."""
