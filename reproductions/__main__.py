"""`python -m reproductions` lists the reproductions."""

from reproductions import CATALOGUE


def main() -> None:
    print("python -m reproductions.<module>   trains and draws what the document shows\n")
    for entry in CATALOGUE:
        print(f"  {entry.module:12} {entry.document:7} {entry.dataset:16} {entry.summary}")
    print(
        "\npython -m reproductions.verify     compares the ports with recordings of the originals"
    )


if __name__ == "__main__":
    main()
