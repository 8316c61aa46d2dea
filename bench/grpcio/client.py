"""Fetches a file: client.py HOST:PORT NAME PATH"""

import sys

import grpc
import stream_pb2
import stream_pb2_grpc


def main(address, name, path):
    with grpc.insecure_channel(address) as channel, open(path, "wb") as file:
        for chunk in stream_pb2_grpc.StreamStub(channel).Download(stream_pb2.Wanted(filename=name)):
            file.write(chunk.content)


if __name__ == "__main__":
    main(*sys.argv[1:])
