"""Facts of the benchmarks that their folders do not carry: which frames, which targets, which attributes.

Each table is text, one entry a word; `benchmarks` reads them. Frame numbers are those of the image files, both ends
included.
"""
from __future__ import annotations

# OTB-2015 (Wu, Lim, Yang: Object Tracking Benchmark): sequences whose annotation covers only a range of the images.
OTB_RANGES = {'David': (300, 770), 'Diving': (1, 215), 'Football1': (1, 74), 'Freeman3': (1, 460), 'Freeman4': (1, 283),
              'Tiger1': (6, 354)}

# The 100 targets of OTB-2015 (TB-100) with the attributes that its authors gave them: illumination variation (IV),
# scale variation (SV), occlusion (OCC), deformation (DEF), motion blur (MB), fast motion (FM), in-plane and
# out-of-plane rotation (IPR, OPR), out of view (OV), background clutter (BC), low resolution (LR).
OTB_ATTRIBUTES = {line.split()[0]: tuple(line.split()[1:]) for line in """\
Basketball IV OCC DEF OPR BC
Biker SV OCC MB FM OPR OV LR
Bird1 DEF FM OV
Bird2 OCC DEF FM IPR OPR
BlurBody SV DEF MB FM IPR
BlurCar1 MB FM
BlurCar2 SV MB FM
BlurCar3 MB FM
BlurCar4 MB FM
BlurFace MB FM IPR
BlurOwl SV MB FM IPR
Board SV MB FM OPR OV BC
Bolt OCC DEF IPR OPR
Bolt2 DEF BC
Box IV SV OCC MB IPR OPR OV BC LR
Boy SV MB FM IPR OPR
Car1 IV SV MB FM BC LR
Car2 IV SV MB FM BC
Car24 IV SV BC
Car4 IV SV
CarDark IV BC
CarScale SV OCC FM IPR OPR
ClifBar SV OCC MB FM IPR OV BC
Coke IV OCC FM IPR OPR BC
Couple SV DEF FM OPR BC
Coupon OCC BC
Crossing SV DEF FM OPR BC
Crowds IV DEF BC
Dancer SV DEF IPR OPR
Dancer2 DEF
David IV SV OCC DEF MB IPR OPR
David2 IPR OPR
David3 OCC DEF OPR BC
Deer MB FM IPR BC LR
Diving SV DEF IPR
Dog SV DEF OPR
Dog1 SV IPR OPR
Doll IV SV OCC IPR OPR
DragonBaby SV OCC MB FM IPR OPR OV
Dudek SV OCC DEF FM IPR OPR OV BC
FaceOcc1 OCC
FaceOcc2 IV OCC IPR OPR
Fish IV
FleetFace SV DEF MB FM IPR OPR
Football OCC IPR OPR BC
Football1 IPR OPR BC
Freeman1 SV IPR OPR
Freeman3 SV IPR OPR
Freeman4 SV OCC IPR OPR
Girl SV OCC IPR OPR
Girl2 SV OCC DEF MB OPR
Gym SV DEF IPR OPR
Human2 IV SV MB OPR
Human3 SV OCC DEF OPR BC
Human4-2 IV SV OCC DEF
Human5 SV OCC DEF
Human6 SV OCC DEF FM OPR OV
Human7 IV SV OCC DEF MB FM
Human8 IV SV DEF
Human9 IV SV DEF MB FM
Ironman IV SV OCC MB FM IPR OPR OV BC LR
Jogging-1 OCC DEF OPR
Jogging-2 OCC DEF OPR
Jump SV OCC DEF MB FM IPR OPR
Jumping MB FM
KiteSurf IV OCC IPR OPR
Lemming IV SV OCC FM OPR OV
Liquor IV SV OCC MB FM OPR OV BC
Man IV
Matrix IV SV OCC FM IPR OPR BC
Mhyang IV DEF OPR BC
MotorRolling IV SV MB FM IPR BC LR
MountainBike IPR OPR BC
Panda SV OCC DEF IPR OPR OV LR
RedTeam SV OCC IPR OPR LR
Rubik SV OCC IPR OPR
Shaking IV SV IPR OPR BC
Singer1 IV SV OCC OPR
Singer2 IV DEF IPR OPR BC
Skater SV DEF IPR OPR
Skater2 SV DEF FM IPR OPR
Skating1 IV SV OCC DEF OPR BC
Skating2-1 SV OCC DEF FM OPR
Skating2-2 SV OCC DEF FM OPR
Skiing IV SV DEF IPR OPR
Soccer IV SV OCC MB FM IPR OPR BC
Subway OCC DEF BC
Surfer SV FM IPR OPR LR
Suv OCC IPR OV
Sylvester IV IPR OPR
Tiger1 IV OCC DEF MB FM IPR OPR
Tiger2 IV OCC DEF MB FM IPR OPR OV
Toy SV FM IPR OPR
Trans IV SV OCC DEF
Trellis IV SV IPR OPR BC
Twinnings SV OPR
Vase SV FM IPR
Walking SV OCC DEF
Walking2 SV OCC LR
Woman IV SV OCC DEF MB FM OPR
""".splitlines()}

# UAV123 (Mueller, Smith, Ghanem: A Benchmark and Simulator for UAV Tracking): name:folder:first:last; the folder is
# left out where it is the name.
UAV123_RANGES = {name: (folder or name, int(first), int(last)) for name, folder, first, last in (
    entry.split(':') for entry in """\
bike1::1:3085 bike2::1:553 bike3::1:433 bird1_1:bird1:1:253 bird1_2:bird1:775:1477 bird1_3:bird1:1573:2437
boat1::1:901 boat2::1:799 boat3::1:901 boat4::1:553 boat5::1:505 boat6::1:805 boat7::1:535 boat8::1:685
boat9::1:1399 building1::1:469 building2::1:577 building3::1:829 building4::1:787 building5::1:481 car1_1:car1:1:751
car1_2:car1:751:1627 car1_3:car1:1627:2629 car10::1:1405 car11::1:337 car12::1:499 car13::1:415 car14::1:1327
car15::1:469 car16_1:car16:1:415 car16_2:car16:415:1993 car17::1:1057 car18::1:1207 car1_s::1:1475 car2::1:1321
car2_s::1:320 car3::1:1717 car3_s::1:1300 car4::1:1345 car4_s::1:830 car5::1:745 car6_1:car6:1:487
car6_2:car6:487:1807 car6_3:car6:1807:2953 car6_4:car6:2953:3925 car6_5:car6:3925:4861 car7::1:1033
car8_1:car8:1:1357 car8_2:car8:1357:2575 car9::1:1879 group1_1:group1:1:1333 group1_2:group1:1333:2515
group1_3:group1:2515:3925 group1_4:group1:3925:4873 group2_1:group2:1:907 group2_2:group2:907:1771
group2_3:group2:1771:2683 group3_1:group3:1:1567 group3_2:group3:1567:2827 group3_3:group3:2827:4369
group3_4:group3:4369:5527 person1::1:799 person10::1:1021 person11::1:721 person12_1:person12:1:601
person12_2:person12:601:1621 person13::1:883 person14_1:person14:1:847 person14_2:person14:847:1813
person14_3:person14:1813:2923 person15::1:1339 person16::1:1147 person17_1:person17:1:1501
person17_2:person17:1501:2347 person18::1:1393 person19_1:person19:1:1243 person19_2:person19:1243:2791
person19_3:person19:2791:4357 person1_s::1:1600 person2_1:person2:1:1189 person2_2:person2:1189:2623
person20::1:1783 person21::1:487 person22::1:199 person23::1:397 person2_s::1:250 person3::1:643 person3_s::1:505
person4_1:person4:1:1501 person4_2:person4:1501:2743 person5_1:person5:1:877 person5_2:person5:877:2101
person6::1:901 person7_1:person7:1:1249 person7_2:person7:1249:2065 person8_1:person8:1:1075
person8_2:person8:1075:1525 person9::1:661 truck1::1:463 truck2::1:385 truck3::1:535 truck4_1:truck4:1:577
truck4_2:truck4:577:1261 uav1_1:uav1:1:1555 uav1_2:uav1:1555:2377 uav1_3:uav1:2473:3469 uav2::1:133 uav3::1:265
uav4::1:157 uav5::1:139 uav6::1:109 uav7::1:373 uav8::1:301 wakeboard1::1:421 wakeboard10::1:469 wakeboard2::1:733
wakeboard3::1:823 wakeboard4::1:697 wakeboard5::1:1675 wakeboard6::1:1165 wakeboard7::1:199 wakeboard8::1:1543
wakeboard9::1:355
""".split())}

# LaSOT (Fan et al.: A High-quality Benchmark for Large-scale Single Object Tracking), protocol II: the four test
# videos of each of the 70 classes, class:number,number,number,number.
LASOT_TEST = tuple(f'{name}-{number}' for name, numbers in (entry.split(':') for entry in """\
airplane:1,9,13,15 basketball:1,6,7,11 bear:2,4,6,17 bicycle:2,7,9,18 bird:2,3,15,17 boat:3,4,12,17 book:3,10,11,19
bottle:1,12,14,18 bus:2,5,17,19 car:2,6,9,17 cat:1,3,18,20 cattle:2,7,12,13 chameleon:3,6,11,20 coin:3,6,7,18
crab:3,6,12,18 crocodile:3,4,10,14 cup:1,4,7,17 deer:4,8,10,14 dog:1,7,15,19 drone:2,7,13,15 electricfan:1,10,18,20
elephant:1,12,16,18 flag:2,3,5,9 fox:2,3,5,20 frog:3,4,9,20 gametarget:1,2,7,13 gecko:1,5,16,19 giraffe:2,10,13,15
goldfish:3,7,8,10 gorilla:4,6,9,13 guitar:3,8,10,16 hand:2,3,9,16 hat:1,2,5,18 helmet:5,11,13,19 hippo:1,7,9,20
horse:1,4,12,15 kangaroo:2,5,11,14 kite:4,6,10,15 leopard:1,7,16,20 licenseplate:6,12,13,15 lion:1,5,12,20
lizard:1,3,6,13 microphone:2,6,14,16 monkey:3,4,9,17 motorcycle:1,3,9,18 mouse:1,8,9,17 person:1,5,10,12
pig:2,10,13,18 pool:3,7,12,15 rabbit:10,13,17,19 racing:10,15,16,20 robot:1,5,8,19 rubicCube:1,6,14,19
sepia:6,8,13,16 shark:2,3,5,6 sheep:3,5,7,9 skateboard:3,8,16,19 spider:14,16,18,20 squirrel:8,11,13,19
surfboard:4,5,8,12 swing:10,14,17,20 tank:6,9,14,16 tiger:4,6,12,18 train:1,7,11,20 truck:3,6,7,16 turtle:5,8,9,16
umbrella:2,9,17,19 volleyball:1,13,18,19 yoyo:7,15,17,19 zebra:10,14,16,17
""".split()) for number in numbers.split(','))

# The attributes of UAV123 in the order of the twelve columns of its files anno/UAV123/att/<sequence>.txt.
UAV123_ATTRIBUTES = 'SV ARC LR FM FOC POC OV BC IV VC CM SOB'.split()
